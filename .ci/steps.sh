# shellcheck shell=bash
# The steps of .ci/run. Each step has a time limit and is measured; the whole run has a budget. A table of
# all steps ends the run.

budget_s="${CI_BUDGET_S:-4500}"
# An optional step does not start when less than this is left of the budget.
optional_min_s="${CI_OPTIONAL_MIN_S:-60}"
# From SIGTERM to SIGKILL: a cluster under test takes this long to stop.
kill_after_s=60

work="$(mktemp -d)"
log="$work/log"
running=""
table=()
tests_passed=0 tests_failed=0 tests_ignored=0

# Tests that passed at their second attempt add a line here.
export ORDINAL_FLAKY_LOG="$work/flaky"
: >"$ORDINAL_FLAKY_LOG"

left_s() { echo $((budget_s - SECONDS)); }

# row SECONDS STATE TEXT: one line of the table.
row() { table+=("$(printf '%7s  %-7s  %s' "$1" "$2" "$3")"); }

# run_limited LIMIT_S COMMAND...: sets `took` to the seconds and returns the exit status, 124 after the limit.
# The output is shown and kept in the log. The command runs in the background, so that a signal to this
# process ends it.
run_limited() {
  local limit="$1" started=$SECONDS code=0
  shift
  : >"$log"
  timeout --kill-after "$kill_after_s" "$limit" "$@" </dev/null >"$log" 2>&1 &
  running=$!
  tail -n +1 -s 0.1 -f --pid "$running" "$log" &
  local shown=$!
  wait "$running" || code=$?
  running=""
  wait "$shown" || true
  took=$((SECONDS - started))
  # KILL came after the limit, too.
  ((code != 137 || took < limit)) || code=124
  return "$code"
}

# Parts of a step that were skipped say so: "NAME: SKIPPED, reason".
row_skips() {
  local line
  while IFS= read -r line; do
    row "" "skipped" "${line:0:200}$1"
  done < <(grep -a 'SKIPPED' "$log" | sed -E 's/^=+ //; s/:? *SKIPPED[:,]?/:/' | sort -u)
}

# The sum of cargo's summary lines, whose own place is far above the end of the output.
row_tests() {
  local passed failed ignored
  read -r passed failed ignored < <(awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
    END { print passed + 0, failed + 0, ignored + 0 }' "$log")
  ((passed + failed + ignored)) || return 0
  row "" "tests" "$passed passed, $failed failed, $ignored ignored"
  tests_passed=$((tests_passed + passed))
  tests_failed=$((tests_failed + failed))
  tests_ignored=$((tests_ignored + ignored))
}

failed() { # NAME CODE LIMIT_S
  local why="exit status $2"
  (($2 != 124 || took < $3)) || why="not done after its limit of $3 s"
  row "$took" "FAILED" "$1: $why"
  row_tests
  echo "=== $1: FAILED after $took s, $why"
  exit 1
}

passed() { # NAME HINT
  row "$took" "ok" "$1"
  row_tests
  row_skips "$2"
  echo "=== $1: ok, $took s"
}

skipped() { # NAME REASON
  row "" "skipped" "$1: $2"
  echo "=== $1: SKIPPED, $2"
}

# step NAME LIMIT_S COMMAND...: must pass.
step() {
  local name="$1" limit="$2" code=0
  shift 2
  echo "=== $name"
  run_limited "$limit" "$@" || code=$?
  ((code == 0)) || failed "$name" "$code" "$limit"
  passed "$name" ""
}

# optional NAME LIMIT_S RECIPE COMMAND...: must pass if the budget has time for it, else `just RECIPE` runs it.
optional() {
  local name="$1" limit="$2" hint="; run: just $3" left code=0
  shift 3
  left=$(left_s)
  if ((left < optional_min_s)); then
    skipped "$name" "no time left in the budget of $budget_s s$hint"
    return
  fi
  local clipped=$((left < limit ? left : limit))
  echo "=== $name"
  run_limited "$clipped" "$@" || code=$?
  if ((code == 124 && clipped < limit && took >= clipped)); then
    skipped "$name" "not done when the budget of $budget_s s ended$hint"
    return
  fi
  ((code == 0)) || failed "$name" "$code" "$limit"
  passed "$name" "$hint"
}

# tool NAME LIMIT_S COMMAND...: provides something that other steps need. Returns 1 where it cannot: the
# steps are skipped then. An installation that was interrupted continues at the next run.
tool() {
  local name="$1" limit="$2" code=0
  shift 2
  if ((limit <= 0)); then
    skipped "$name" "no time left in the budget of $budget_s s"
    return 1
  fi
  echo "=== $name"
  run_limited "$limit" "$@" || code=$?
  if ((code == 0)) && ! grep -q "SKIPPED" "$log"; then
    passed "$name" ""
    return
  fi
  local why
  why="$(sed -n 's/.*SKIPPED, //p' "$log" | tail -n 1)"
  [[ -n "$why" ]] || why="$(grep -m 1 -E 'fatal|ERROR' "$log" || tail -n 1 "$log")"
  [[ -n "$why" ]] || why="exit status $code"
  ((code != 124)) || why="not done after $limit s"
  skipped "$name" "${why:0:200}"
  return 1
}

# However the run ends: the table, the flaky tests, and the last line.
finish() {
  local code=$? line
  if [[ -n "$running" ]]; then
    kill -TERM "$running" 2>/dev/null || true
    wait "$running" || true
  fi
  echo "=== steps, in seconds"
  printf '%s\n' "${table[@]}"
  while IFS= read -r line; do echo "FLAKY: $line"; done <"$ORDINAL_FLAKY_LOG"
  rm -rf "$work"
  echo "tests: $tests_passed passed, $tests_failed failed, $tests_ignored skipped"
  if ((code == 0)); then
    echo "=== all ok, $SECONDS s of $budget_s s"
  else
    echo "=== FAILED after $SECONDS s" >&2
  fi
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

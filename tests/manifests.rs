//! What `kubectl kustomize` makes of the manifests in `k8s/`, without a cluster: components combine in
//! any order, and a `namePrefix` gives a second instance that shares no name and no pod with the first.
//!
//! Needs `kubectl` or `kustomize`, in `PATH` or in the cache of `.ci/tools`; else the tests are skipped,
//! and say so.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use ordinal::config::{Serve, sizing::Sizes};
use serde_json::{Value, json};

const INSTANCE: &str = "app.kubernetes.io/instance";

/// A program that renders a directory, with its subcommand.
struct Kustomize(PathBuf, &'static str);

impl Kustomize {
    /// `None`, and a line that says so: there is none.
    fn find(test: &str) -> Option<Kustomize> {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        let cached = cache.or_else(home).map(|cache| cache.join("ordinal/kubernetes/current/bin"));
        let path = env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = env::split_paths(&path).chain(cached).collect();
        for (program, subcommand) in [("kubectl", "kustomize"), ("kustomize", "build")] {
            if let Some(found) =
                folders.iter().map(|folder| folder.join(program)).find(|p| p.exists())
            {
                return Some(Kustomize(found, subcommand));
            }
        }
        // Not a macro of the print family, whose output the test harness captures.
        let why = "there is no kubectl: .ci/tools kubernetes builds it";
        let _ = writeln!(std::io::stderr(), "manifests, {test}: SKIPPED, {why}");
        None
    }

    /// The objects of a directory.
    fn render(&self, directory: &Path) -> Vec<Value> {
        let done = Command::new(&self.0).arg(self.1).arg(directory).output().unwrap();
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && stderr.is_empty(), "{}: {stderr}", directory.display());
        serde_saphyr::from_multiple(std::str::from_utf8(&done.stdout).unwrap()).unwrap()
    }

    /// The objects of a kustomization with these fields, whose paths begin at the root of the sources.
    fn render_made_up(&self, fields: &Value) -> Vec<Value> {
        let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let folder = scratch.path().canonicalize().unwrap();
        let up = "../".repeat(folder.components().count() - 1);
        let root = format!("{up}{}", env!("CARGO_MANIFEST_DIR").trim_start_matches('/'));
        let text = fields.to_string().replace("ROOT", &root);
        fs::write(folder.join("kustomization.yaml"), text).unwrap();
        self.render(&folder)
    }
}

/// The names of all components.
fn components() -> Vec<String> {
    let folders = fs::read_dir("k8s/components").unwrap();
    let mut names: Vec<String> =
        folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The base with all of these components, with a prefix for all names.
fn instance(prefix: &str, components: &[String]) -> Value {
    let paths: Vec<String> =
        components.iter().map(|name| format!("ROOT/k8s/components/{name}")).collect();
    json!({"namePrefix": prefix, "resources": ["ROOT/k8s/base"], "components": paths})
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap()
}

fn of_kind<'a>(objects: &'a [Value], wanted: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| kind(object) == wanted).collect()
}

/// All values of an object, with their paths.
fn walk<'a>(path: &str, value: &'a Value, visit: &mut impl FnMut(&str, &'a Value)) {
    visit(path, value);
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| walk(&format!("{path}/{key}"), value, visit));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(i, item)| walk(&format!("{path}/{i}"), item, visit));
        }
        _ => {}
    }
}

/// Names of the unprefixed instance: the words `kv` and `kv-…`.
fn unprefixed_names(object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(kind(object), object, &mut |path, value| {
        let Value::String(text) = value else { return };
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        if words.any(|word| word == "kv" || word.starts_with("kv-")) {
            found.push(format!("{path}: {text}"));
        }
    });
    found
}

/// The selectors of pods and of Services: maps of labels, by path.
fn selectors(objects: &[Value]) -> BTreeMap<String, &Value> {
    let mut found = BTreeMap::new();
    for object in objects {
        let name = format!("{} {}", kind(object), object["metadata"]["name"]);
        walk(&name, object, &mut |path, value| {
            let of_service = kind(object) == "Service" && path == format!("{name}/spec/selector");
            if of_service || path.ends_with("/matchLabels") && !path.contains("namespaceSelector") {
                found.insert(path.to_owned(), value);
            }
        });
    }
    found
}

/// The label sets that selectors could select.
fn label_sets(objects: &[Value]) -> Vec<&Value> {
    let pods = of_kind(objects, "StatefulSet");
    let pods = pods.into_iter().map(|set| &set["spec"]["template"]["metadata"]["labels"]);
    pods.chain(objects.iter().map(|object| &object["metadata"]["labels"])).collect()
}

fn selects(selector: &Value, labels: &Value) -> bool {
    selector.as_object().unwrap().iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn a_prefix_renames_every_name_and_every_reference() {
    let Some(kustomize) = Kustomize::find("a prefix renames") else { return };
    let objects = kustomize.render_made_up(&instance("b-", &components()));
    let left: Vec<String> = objects.iter().flat_map(unprefixed_names).collect();
    assert!(left.is_empty(), "\n{}\n", left.join("\n"));
    for object in &objects {
        assert!(object["metadata"]["name"].as_str().unwrap().starts_with("b-kv"), "{object}");
        assert_eq!(object["metadata"]["labels"][INSTANCE], "b-kv", "{object}");
    }
    let role = of_kind(&objects, "Role")[0];
    let named =
        role["rules"].as_array().unwrap().iter().filter_map(|r| r["resourceNames"].as_array());
    let named: Vec<_> = named.flatten().collect();
    for name in ["b-kv", "b-kv-cluster", "b-kv-leader"] {
        assert!(named.contains(&&json!(name)), "the Role does not name {name}: {named:?}");
    }
}

/// The names that the objects have are those that kvd derives: `src/server/stateful_pod.rs`.
#[test]
fn objects_have_the_names_that_follow_from_the_pods_name() {
    let Some(kustomize) = Kustomize::find("derived names") else { return };
    for prefix in ["", "b-", "a-b-"] {
        let objects = kustomize.render_made_up(&instance(prefix, &[]));
        let set = of_kind(&objects, "StatefulSet")[0];
        let name = set["metadata"]["name"].as_str().unwrap();
        assert_eq!(name, format!("{prefix}kv"));
        assert_eq!(set["spec"]["serviceName"], format!("{name}-peers"));
        let has = |kind: &str, suffix: &str| {
            let name = json!(format!("{name}-{suffix}"));
            of_kind(&objects, kind).iter().any(|object| object["metadata"]["name"] == name)
        };
        assert!(has("Service", "peers") && has("Service", "client") && has("Service", "leader"));
        assert!(has("ConfigMap", "cluster") && has("Lease", "leader"));
        // No variable repeats a name, where it could be out of date.
        let env = set["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
        let own_name = json!({"fieldRef": {"fieldPath": "metadata.name"}});
        assert!(env.contains(&json!({"name": "KVD_POD_NAME", "valueFrom": own_name})), "{env:?}");
        let mut values = env.iter().filter_map(|variable| variable["value"].as_str());
        assert!(values.all(|value| !value.contains("kv")), "{env:?}");
    }
}

#[test]
fn no_selector_of_one_instance_selects_an_object_of_another() {
    let Some(kustomize) = Kustomize::find("separate selectors") else { return };
    let all = components();
    // The last one has its prefix above an overlay.
    let overlay = json!({"namePrefix": "c-", "resources": ["ROOT/k8s/overlays/production"]});
    let instances = [instance("", &all), instance("a-", &all), instance("b-", &all), overlay];
    let instances = instances.map(|fields| kustomize.render_made_up(&fields));
    for (i, one) in instances.iter().enumerate() {
        let own = label_sets(one);
        for (path, selector) in selectors(one) {
            assert!(selector[INSTANCE].is_string(), "{path} selects every instance: {selector}");
            assert!(own.iter().any(|labels| selects(selector, labels)), "{path} selects nothing");
            for (j, other) in instances.iter().enumerate().filter(|(j, _)| *j != i) {
                let taken = label_sets(other).into_iter().find(|labels| selects(selector, labels));
                assert!(taken.is_none(), "{path} of instance {i} selects {taken:?} of {j}");
            }
        }
    }
}

#[test]
fn components_combine_in_any_order() {
    let Some(kustomize) = Kustomize::find("components in any order") else { return };
    let all = components();
    let mut backwards = all.clone();
    backwards.reverse();
    let sorted = |fields: &Value| {
        let mut objects = kustomize.render_made_up(fields);
        for set in objects.iter_mut().filter(|object| kind(object) == "StatefulSet") {
            let constraints = &mut set["spec"]["template"]["spec"]["topologySpreadConstraints"];
            let constraints = constraints.as_array_mut().unwrap();
            constraints.sort_by_key(|constraint| constraint["topologyKey"].to_string());
        }
        objects.sort_by_key(|object| format!("{} {}", object["kind"], object["metadata"]["name"]));
        objects
    };
    assert_eq!(sorted(&instance("b-", &all)), sorted(&instance("b-", &backwards)));
    // And each alone.
    for component in &all {
        assert!(!sorted(&instance("", std::slice::from_ref(component))).is_empty());
    }
}

/// A number of bytes in Kubernetes' notation.
fn quantity(value: &Value) -> u64 {
    let text = value.as_str().unwrap();
    let (number, unit) = text.split_at(text.len() - 2);
    number.parse::<u64>().unwrap() << if unit == "Gi" { 30 } else { 20 }
}

#[derive(clap::Parser)]
struct KvdServe {
    #[command(flatten)]
    serve: Serve,
}

/// The sizes of a member with these flags, a claim for this storage, and this memory limit.
fn sizes_with(flags: Vec<String>, storage: &Value, memory: &Value) -> Sizes {
    let line = ["serve".to_owned(), "--data-dir=/data".into()].into_iter().chain(flags);
    let tuning = <KvdServe as clap::Parser>::parse_from(line).serve.tuning;
    Sizes {
        quota_bytes: tuning.quota_backend_bytes,
        cache_bytes: tuning.cache_size,
        keep_log_bytes: tuning.wal.keep_log_bytes,
        segment_bytes: tuning.wal.wal_segment_bytes,
        // A file system keeps some percent for itself.
        volume_bytes: Some(quantity(storage) / 100 * 97),
        memory_limit_bytes: Some(quantity(memory)),
    }
}

/// The sizes of a member with the container's variables for tuning.
fn sizes(set: &Value) -> Sizes {
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let mut flags = Vec::new();
    for variable in container["env"].as_array().unwrap() {
        let flag = variable["name"].as_str().unwrap().strip_prefix("KVD_").unwrap();
        if ["QUOTA_BACKEND_BYTES", "CACHE_SIZE"].contains(&flag) {
            let flag = flag.to_lowercase().replace('_', "-");
            flags.push(format!("--{flag}={}", variable["value"].as_str().unwrap()));
        }
    }
    let claim = &set["spec"]["volumeClaimTemplates"][0]["spec"];
    let memory = &container["resources"]["limits"]["memory"];
    sizes_with(flags, &claim["resources"]["requests"]["storage"], memory)
}

#[test]
fn the_sizes_of_the_documented_table_fit_each_other() {
    let text = fs::read_to_string("docs/sizing.md").unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.contains("iB"));
    let mut count = 0;
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let quota = cells[2].split(',').next().unwrap();
        let flags =
            vec![format!("--quota-backend-bytes={quota}"), format!("--cache-size={}", cells[5])];
        let sizes = sizes_with(flags, &json!(cells[3]), &json!(cells[4]));
        assert_eq!(sizes.misfits(), [], "{row}");
        count += 1;
    }
    assert_eq!(count, 4, "the rows of the table");
}

#[test]
fn shipped_sizes_fit_each_other() {
    let Some(kustomize) = Kustomize::find("shipped sizes") else { return };
    for (components, quota) in [(vec![], 2 << 30), (vec!["small".to_owned()], 256 << 20)] {
        let objects = kustomize.render_made_up(&instance("", &components));
        let sizes = sizes(of_kind(&objects, "StatefulSet")[0]);
        assert_eq!(sizes.quota_bytes, quota);
        assert_eq!(sizes.misfits(), [], "{components:?}: {sizes:?}");
    }
}

/// Whether a NetworkPolicy's rules, some of `ingress` or `egress`, admit a port of any address.
fn admits_anywhere(rules: &Value, peers: &str, protocol: &str, port: u64) -> bool {
    let fits = |rule: &&Value| {
        let of_port =
            |p: &Value| p["protocol"] == protocol && p.get("port").is_none_or(|n| *n == port);
        rule.get(peers).is_none() && rule["ports"].as_array().unwrap().iter().any(of_port)
    };
    rules.as_array().unwrap().iter().any(|rule| fits(&rule))
}

#[test]
fn the_network_policy_admits_dns_and_api_servers_of_any_kind_and_members_on_every_port() {
    let Some(kustomize) = Kustomize::find("network policy") else { return };
    let objects = kustomize.render_made_up(&instance("", &["network-policy".into()]));
    let spec = &of_kind(&objects, "NetworkPolicy")[0]["spec"];
    for (protocol, port) in [("UDP", 53), ("TCP", 53), ("UDP", 5353), ("TCP", 5353)] {
        assert!(admits_anywhere(&spec["egress"], "to", protocol, port), "DNS: {protocol} {port}");
    }
    for port in [443, 6443, 8443, 16443] {
        assert!(admits_anywhere(&spec["egress"], "to", "TCP", port), "API server: {port}");
    }
    let members = &spec["podSelector"];
    for (rules, peers) in [(&spec["ingress"], "from"), (&spec["egress"], "to")] {
        let among = rules.as_array().unwrap().iter();
        let among: Vec<_> =
            among.filter(|rule| rule[peers][0]["podSelector"] == *members).collect();
        let ports = among.iter().flat_map(|rule| rule["ports"].as_array().unwrap());
        let ports: Vec<u64> = ports.map(|port| port["port"].as_u64().unwrap()).collect();
        assert_eq!(ports, [2379, 2380, 2381], "members reach each other: {peers}");
    }
}

#[test]
fn zones_leave_no_pod_pending_for_nodes_that_take_none() {
    let Some(kustomize) = Kustomize::find("zones") else { return };
    let objects = kustomize.render_made_up(&instance("", &["zones".into()]));
    let pod = &of_kind(&objects, "StatefulSet")[0]["spec"]["template"]["spec"];
    let constraints = pod["topologySpreadConstraints"].as_array().unwrap();
    let kinds: BTreeMap<&str, &str> = constraints
        .iter()
        .map(|c| (c["topologyKey"].as_str().unwrap(), c["whenUnsatisfiable"].as_str().unwrap()))
        .collect();
    let hosts = ("kubernetes.io/hostname", "ScheduleAnyway");
    let zones = ("topology.kubernetes.io/zone", "DoNotSchedule");
    assert_eq!(kinds, BTreeMap::from([hosts, zones]));
    assert!(constraints.iter().all(|c| c["nodeTaintsPolicy"] == "Honor"), "{constraints:?}");
}

#[test]
fn openshift_chooses_the_ids_of_user_and_groups() {
    let Some(kustomize) = Kustomize::find("openshift") else { return };
    let objects = kustomize.render_made_up(&instance("", &["openshift".into()]));
    let context =
        &of_kind(&objects, "StatefulSet")[0]["spec"]["template"]["spec"]["securityContext"];
    let kept: Vec<&String> = context.as_object().unwrap().keys().collect();
    assert_eq!(kept, ["fsGroupChangePolicy", "runAsNonRoot", "seccompProfile"]);
}

#[test]
fn objects_that_kvd_writes_are_shipped_empty() {
    let Some(kustomize) = Kustomize::find("empty objects") else { return };
    let objects = kustomize.render_made_up(&instance("", &components()));
    let named = |kind, name| {
        let found = of_kind(&objects, kind).into_iter().find(|o| o["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
    };
    assert_eq!(named("ConfigMap", "kv-cluster").get("data"), None);
    assert_eq!(named("Lease", "kv-leader").get("spec"), None);
    assert_eq!(named("Service", "kv-leader")["spec"].get("selector"), None);
}

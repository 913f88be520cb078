// Sends the calls of a plan through grpc-js and prints every answer: one line of JSON a step.
//
//   node driver.js PLAN
'use strict';

const fs = require('fs');
const grpc = require('@grpc/grpc-js');
const { version } = require('@grpc/grpc-js/package.json');

// The longest time that an answer, or the end of a stream, may take.
const WAIT_MS = 10_000;
const GZIP = 2;

const same = (bytes) => bytes;
const raw = (hex) => Buffer.from(hex, 'hex');
const clients = new Map();

// Compression is a matter of the channel here.
function client({ endpoint, gzip }) {
  const name = `${endpoint} ${gzip}`;
  if (!clients.has(name)) {
    const options = {
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
      'grpc.default_compression_algorithm': gzip ? GZIP : 0,
    };
    clients.set(name, new grpc.Client(endpoint, grpc.credentials.createInsecure(), options));
  }
  return clients.get(name);
}

function metadata(step) {
  const made = new grpc.Metadata();
  for (const [name, value] of Object.entries(step.metadata)) made.set(name, value);
  return made;
}

const options = (step) => ({ deadline: Date.now() + step.timeout_ms });

// One request, one answer.
function unary(step) {
  return new Promise((done) => {
    const messages = [];
    const call = client(step).makeUnaryRequest(
      step.method, same, same, raw(step.request), metadata(step), options(step),
      (_error, answer) => answer && messages.push(answer),
    );
    call.on('status', ({ code, details }) => setImmediate(done, { messages, code, text: details }));
  });
}

// Any number of answers; with several requests, if the step has them. Without a code where the client
// ended the stream.
async function stream(step) {
  const on = client(step);
  const call = step.kind === 'server'
    ? on.makeServerStreamRequest(step.method, same, same, raw(step.request), metadata(step), options(step))
    : on.makeBidiStreamRequest(step.method, same, same, metadata(step), options(step));
  const messages = [];
  let status = null;
  let changed = () => {};
  call.on('data', (message) => { messages.push(message); changed(); });
  call.on('error', () => {});
  call.on('status', (ended) => setImmediate(() => { status = ended; changed(); }));

  // True if there are this many answers; false if the stream ends before, or they are late.
  const wait = (count) => new Promise((done) => {
    const late = setTimeout(() => done(false), WAIT_MS);
    changed = () => {
      if (messages.length < count && !status) return;
      clearTimeout(late);
      done(messages.length >= count);
    };
    changed();
  });

  const perform = async () => {
    let expected = 0;
    for (const action of step.actions) {
      if ('send' in action) call.write(raw(action.send));
      else if ('call' in action) {
        const meanwhile = { ...step, metadata: {}, timeout_ms: WAIT_MS, method: action.call, request: action.message };
        const { code, text } = await unary(meanwhile);
        if (code !== 0) throw new Error(`${action.call}: ${text}`);
      } else if ('await' in action) {
        expected += action.await;
        if (!(await wait(expected))) return;
      } else if ('close' in action) call.end();
      else return;
    }
    await wait(Infinity);
  };
  await perform();
  const ended = status;
  call.cancel();
  return ended ? { messages, code: ended.code, text: ended.details } : { messages, code: null, text: '' };
}

// Waits until the line is written: a pipe takes a large one in parts.
const print = (line) => new Promise((done) => process.stdout.write(`${JSON.stringify(line)}\n`, done));

async function main() {
  for (const line of fs.readFileSync(process.argv[2], 'utf8').split('\n').filter(Boolean)) {
    const step = JSON.parse(line);
    if (step.kind === 'version') {
      await print({ version: `grpc-js ${version}` });
      continue;
    }
    const { messages, code, text } = await (step.kind === 'unary' ? unary : stream)(step);
    await print({ step: step.step, messages: messages.map((m) => m.toString('hex')), code, text });
  }
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

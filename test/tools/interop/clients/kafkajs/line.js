'use strict';
// The command line that the JavaScript clients of the interop test share; the
// driver's contract.go describes it. Bytes are kept as they are: latin1, one
// character each.

const fs = require('fs');

const [bootstrap, mode, step, topic, argument] = process.argv.slice(2);
if (argument === undefined) {
  console.error('usage: client BOOTSTRAP MODE STEP TOPIC ARGUMENT');
  process.exit(1);
}

// records gives arrays of records as they come on stdin.
async function* records() {
  let rest = '';
  process.stdin.setEncoding('latin1');
  for await (const piece of process.stdin) {
    const lines = (rest + piece).split('\n');
    rest = lines.pop();
    if (lines.length > 0) {
      yield lines.map((l) => {
        const tab = l.indexOf('\t');
        return { key: Buffer.from(l.slice(0, tab), 'latin1'), value: Buffer.from(l.slice(tab + 1), 'latin1'), headers: { h: 'interop' } };
      });
    }
  }
}

// transact is step transact: begin gives a transaction with send, commit and abort.
async function transact(begin) {
  let rest = '';
  let some = [];
  process.stdin.setEncoding('latin1');
  for await (const piece of process.stdin) {
    const lines = (rest + piece).split('\n');
    rest = lines.pop();
    for (const l of lines) {
      const tab = l.indexOf('\t');
      if (tab >= 0) {
        some.push({ key: Buffer.from(l.slice(0, tab), 'latin1'), value: Buffer.from(l.slice(tab + 1), 'latin1') });
        continue;
      }
      const transaction = await begin();
      await transaction.send({ topic, messages: some });
      await transaction[l]();
      some = [];
      say(l === 'commit' ? 'committed' : 'aborted');
    }
  }
}

// login is how to log in, over TLS: mechanism, user, password, token, ca. undefined: not at all.
const login = process.env.INTEROP_LOGIN && Object.fromEntries(fs.readFileSync(process.env.INTEROP_LOGIN, 'utf8').trimEnd().split('\n').map((l) => {
  const equals = l.indexOf('=');
  return [l.slice(0, equals), l.slice(equals + 1)];
}));

// logIn is step login: enter does something that needs a login, and refused tells the client's
// own error of a login that failed.
async function logIn(enter, refused) {
  say('asking');
  try {
    await enter();
  } catch (e) {
    if (!refused(e)) throw e;
    say(`refused ${String(e).replace(/\s+/g, ' ')}`);
    return;
  }
  say('in');
}

// ended resolves when stdin ends.
const ended = () => new Promise((resolve) => process.stdin.on('end', resolve).resume());

function show(partition, m) {
  let line = `${partition}\t${m.offset}\t${m.key.toString('latin1')}\t${m.value.toString('latin1')}`;
  for (const [name, value] of Object.entries(m.headers || {})) {
    line += `\t${name}=${value.toString('latin1')}`;
  }
  process.stdout.write(line + '\n', 'latin1');
}

const say = (text) => process.stdout.write(`# ${text}\n`);

// go runs the step and ends the program when all output is out.
function go(steps) {
  steps[step]().then(
    () => process.stdout.write('', () => process.exit(0)),
    (e) => {
      console.error(e);
      process.exit(1);
    },
  );
}

// consuming gives the steps read, committed and group of a client whose consumer always has a group. consume joins the
// group and calls back after each record.
function consuming(consume) {
  async function read() {
    let n = 0;
    let enough;
    const all = new Promise((resolve) => { enough = resolve; });
    const consumer = await consume(`${topic}-read-${process.pid}`, () => { if (++n === Number(argument)) enough(); });
    await all;
    await consumer.disconnect();
  }
  async function group() {
    const over = ended();
    const consumer = await consume(argument, () => {});
    await over;
    await consumer.disconnect();
    say('closed');
  }
  return { read, group, committed: read };
}

module.exports = { login, logIn, bootstrap: bootstrap.split(','), mode, step, topic, argument, records, transact, ended, show, say, go, consuming };

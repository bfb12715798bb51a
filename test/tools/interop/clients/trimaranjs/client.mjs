// Trimaran's own JavaScript client in the interop test, over WebSocket: in Node.js, Deno and Bun.
// TRIMARAN_JS is the folder of the built package; the driver's contract.go describes the command line.
import { Buffer } from 'node:buffer'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import process from 'node:process'
import { pathToFileURL } from 'node:url'

const folder = process.env.TRIMARAN_JS + '/'
const load = file => import(pathToFileURL(folder + file).href)
const { Client } = await load('dist/index.js')
const [bootstrap, , step, topic, argument] = process.argv.slice(2)

const out = line => new Promise(done => process.stdout.write(line, done))
const say = text => out(`# ${text}\n`)

// How to log in, over TLS. Each runtime is told of the CA by its environment.
const login = process.env.INTEROP_LOGIN && Object.fromEntries(
  readFileSync(process.env.INTEROP_LOGIN, 'utf8').trimEnd().split('\n').map(l => [l.slice(0, l.indexOf('=')), l.slice(l.indexOf('=') + 1)]),
)
const sasl = login && { mechanism: login.mechanism, username: login.user, password: login.password, token: login.token }
const client = new Client({
  gateways: bootstrap.split(',').map(address => `${login ? 'wss' : 'ws'}://${address}/`),
  // Node.js has one of its own from 22 on.
  WebSocket: globalThis.WebSocket ?? createRequire(folder)('ws'),
  sasl,
  onEvent: e => console.error(new Date().toISOString(), e.type, e.gateway, e.error ? String(e.error) : ''),
})

// Any bytes but tab and line feed: one character each.
const bytes = text => new Uint8Array(Buffer.from(text, 'latin1'))
const show = r => {
  const fields = [Buffer.from(`${r.partition}\t${r.offset}\t`), Buffer.from(r.key), Buffer.from('\t'), Buffer.from(r.value)]
  for (const h of r.headers) fields.push(Buffer.from(`\t${h.key}=`), Buffer.from(h.value))
  return out(Buffer.concat([...fields, Buffer.from('\n')]))
}

async function* records() {
  let rest = ''
  for await (const piece of process.stdin) {
    const lines = (rest + Buffer.from(piece).toString('latin1')).split('\n')
    rest = lines.pop()
    if (lines.length) {
      yield lines.map(l => ({ key: bytes(l.slice(0, l.indexOf('\t'))), value: bytes(l.slice(l.indexOf('\t') + 1)), headers: { h: 'interop' } }))
    }
  }
}

const steps = {
  async login() {
    await say('asking')
    try {
      await client.metadata()
      await say('in')
    } catch (e) {
      if (e.name !== 'SASL_AUTHENTICATION_FAILED') throw e
      await say(`refused ${String(e).replace(/\s+/g, ' ')}`)
    }
  },

  async create() {
    const { Admin } = await load('dist/admin.js')
    await new Admin(client).createTopics([{ topic, partitions: Number(argument), replicationFactor: 3 }])
  },

  async produce() {
    const producer = client.producer({ compression: argument })
    let n = 0
    try {
      for await (const some of records()) n += (await producer.send(topic, some)).length
    } catch (e) {
      if (e.name !== 'UNSUPPORTED_COMPRESSION_TYPE') throw e
      for await (const _ of process.stdin); // so that who writes it is not broken off
      return say(`unsupported ${e.message}`)
    }
    await producer.close()
    await say(`produced ${n}`)
  },

  async read() {
    let left = Number(argument)
    for await (const r of client.tail({ topics: topic, from: 'earliest' })) {
      await show(r)
      if (!--left) return
    }
  },

  async group() {
    const { Group } = await load('dist/group.js')
    const over = new AbortController()
    process.stdin.on('end', () => over.abort()).resume()
    try {
      for await (const r of new Group(client, { groupId: argument, topics: topic, from: 'earliest', signal: over.signal })) await show(r)
    } catch (e) {
      if (!over.signal.aborted) throw e
    }
    await say('closed')
  },
}

try {
  await steps[step]()
  client.close()
  process.exit(0)
} catch (e) {
  console.error(e)
  process.exit(1)
}

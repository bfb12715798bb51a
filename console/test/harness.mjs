// Real nodes on free loopback ports, ended by their process ids, and pages of headless Chromium
// whose complaints are noted.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { build } from 'esbuild'
import { chromium } from 'playwright-core'

export const program = process.env.TRIMARAN_BIN ?? fileURLToPath(new URL('../../bin/trimaran', import.meta.url))

const usable = port =>
  new Promise(done => {
    const s = createServer().on('error', () => done(false))
    s.listen(port, '127.0.0.1', () => s.close(() => done(true)))
  })

// Below the kernel's ephemeral range, so that no outgoing connection takes one in between.
async function freePort(offsets = [0, 100, 200]) {
  for (;;) {
    const port = 14000 + Math.floor(Math.random() * 17000)
    if ((await Promise.all(offsets.map(o => usable(port + o)))).every(Boolean)) return port
  }
}

/** Waits until it gives something. */
export async function until(what, ms = 20_000) {
  const end = Date.now() + ms
  for (;;) {
    const found = await what()
    if (found) return found
    assert.ok(Date.now() < end, `not within ${ms} ms: ${what}`)
    await new Promise(done => setTimeout(done, 25))
  }
}

export class Cluster {
  dir = mkdtempSync(join(tmpdir(), 'trimaran-console-'))
  ports = []
  nodes = []

  static async start(count, ...args) {
    if (!existsSync(program)) throw new Error(`${program} is not there: make build, or set TRIMARAN_BIN`)
    const c = new Cluster()
    c.args = args
    for (let i = 0; i < count; i++) c.ports.push(await freePort())
    for (let i = 0; i < count; i++) c.run(i, true)
    process.on('exit', () => c.nodes.forEach(n => n?.kill('SIGKILL')))
    process.once('SIGTERM', () => process.exit(1))
    await c.ready()
    return c
  }

  run(i, first = false) {
    const log = openSync(join(this.dir, `n${i + 1}.log`), 'a')
    const args = ['serve', '--data', join(this.dir, `n${i + 1}`), '--node-id', `n${i + 1}`, '--listen', `127.0.0.1:${this.ports[i]}`, ...this.args]
    if (this.ports.length > 1) args.push('--join', this.ports.filter((_, k) => k !== i).map(p => `127.0.0.1:${p + 200}`).join(','))
    if (first) args.push('--bootstrap-expect', String(this.ports.length))
    this.nodes[i] = spawn(program, args, { stdio: ['ignore', log, log] })
  }

  async ready() {
    for (const [i, port] of this.ports.entries()) {
      if (!this.nodes[i]) continue
      await until(() => {
        assert.equal(this.nodes[i].exitCode, null, this.log(i))
        return fetch(`http://127.0.0.1:${port}/readyz`).then(r => r.ok, () => false)
      }, process.env.CONSOLE_LOAD ? 600_000 : 120_000) // some thousand topics take their time to make
    }
  }

  log(i) {
    return readFileSync(join(this.dir, `n${i + 1}.log`), 'utf8')
  }

  url(i = 0) {
    return `http://127.0.0.1:${this.ports[i]}/`
  }

  /** Runs a command of the program against the nodes. */
  async trimaran(args, input) {
    const p = promisify(execFile)(program, [...args, '--brokers', this.brokers ?? this.ports.map(p => `127.0.0.1:${p}`).join(',')], { maxBuffer: 64 << 20 })
    if (input !== undefined) p.child.stdin.end(input)
    return (await p).stdout
  }

  /** Starts a command of the program that ends when it is killed. */
  spawn(args) {
    const p = spawn(program, [...args, '--brokers', this.ports.map(p => `127.0.0.1:${p}`).join(',')], { stdio: 'ignore' })
    process.on('exit', () => p.kill('SIGKILL'))
    return p
  }

  kill(i) {
    this.nodes[i].kill('SIGKILL')
    this.nodes[i] = undefined
  }

  async end() {
    const gone = this.nodes.filter(Boolean).map(n => new Promise(done => n.once('exit', done)))
    for (const n of this.nodes) n?.kill('SIGKILL')
    await Promise.all(gone)
    rmSync(this.dir, { recursive: true, force: true })
  }
}

const client = await build({
  stdin: {
    contents: "export * from './apis.js'; export * from './apis-admin.js'; export * from './apis-group.js'; export * from './schema.js'; export * from './records.js'; export * from './crc32c.js'; export { Reader, Writer } from './bytes.js'; export { encodeRequest, decodeAnswer } from './connection.js'",
    resolveDir: fileURLToPath(new URL('../../clients/js/src', import.meta.url)),
  },
  bundle: true, write: false, format: 'esm',
})
/** The JavaScript client's own parts: APIs, batches, readers and writers. */
export const parts = await import('data:text/javascript;base64,' + Buffer.from(client.outputFiles[0].contents).toString('base64'))

const { api, arr, bool, i16, i32, i64, nullableStr, obj, str } = parts
const AddPartitionsToTxn = api(24, 3, 1,
  obj({ transactionalId: str, producerId: i64, producerEpoch: i16, topics: arr(obj({ topic: str, partitions: arr(i32) })) }),
  obj({ throttleMs: i32, topics: arr(obj({ topic: str, partitions: arr(obj({ partition: i32, errorCode: i16 })) })) }))
const EndTxn = api(26, 3, 1, obj({ transactionalId: str, producerId: i64, producerEpoch: i16, committed: bool }), obj({ throttleMs: i32, errorCode: i16 }))

/** A client of Kafka's protocol over TCP: one request after the other. */
export class Wire {
  id = 0
  constructor(port) {
    this.socket = connect(port, '127.0.0.1')
    this.bytes = this.socket[Symbol.asyncIterator]()
  }

  async call(api, body) {
    this.socket.write(parts.encodeRequest(api, ++this.id, 'test', body))
    let got = Buffer.alloc(0)
    while (got.length < 8 || got.length < 4 + got.readInt32BE(0)) got = Buffer.concat([got, (await this.bytes.next()).value])
    return parts.decodeAnswer(api, new Uint8Array(got.subarray(8)))
  }

  /** Appends one batch, and so one entry of the partition's log. */
  async produce(topic, partition, records, transactionalId = null) {
    const a = await this.call(parts.Produce, { transactionalId, acks: -1, timeoutMs: 8_000, topics: [{ topic, partitions: [{ partition, records }] }] })
    assert.equal(a.topics[0].partitions[0].errorCode, 0)
  }

  close() {
    this.socket.destroy()
  }
}

/** A producer of transactions. */
export class Transactions extends Wire {
  sequence = 0
  static async start(port, transactionalId) {
    const t = new Transactions(port)
    t.transactionalId = transactionalId
    // A coordinator that has just come to be says so.
    await until(async () => {
      const a = await t.call(parts.InitProducerId, { transactionalId, transactionTimeoutMs: 60_000, producerId: -1n, producerEpoch: -1 })
      t.identity = { producerId: a.producerId, producerEpoch: a.producerEpoch }
      return a.errorCode === 0
    })
    return t
  }

  async write(topic, partition, values) {
    const { transactionalId, identity } = this
    await until(async () => {
      const a = await this.call(AddPartitionsToTxn, { transactionalId, ...identity, topics: [{ topic, partitions: [partition] }] })
      const { errorCode } = a.topics[0].partitions[0]
      assert.ok(errorCode === 0 || errorCode === 51, errorCode) // 51: the end of the one before goes on
      return errorCode === 0
    })
    const records = Buffer.from(await parts.encodeBatch(values.map(value => ({ value })), 'none', identity, this.sequence))
    records[22] |= 0x10 // transactional
    records.writeUInt32BE(parts.crc32c(records.subarray(21)), 17)
    this.sequence += values.length
    await this.produce(topic, partition, records, transactionalId)
  }

  async end(committed) {
    assert.equal((await this.call(EndTxn, { transactionalId: this.transactionalId, ...this.identity, committed })).errorCode, 0)
  }
}

/** `trimaran dev` with three nodes, whose own page is the first of its addresses. */
export class Dev {
  static async start(...args) {
    const d = new Dev()
    const base = await freePort([0, 1, 2, 100, 101, 102, 200, 201, 202, 300])
    d.ports = [base + 300, base, base + 1, base + 2]
    d.process = spawn(program, ['dev', '--nodes', '3', '--ephemeral', '--listen', `127.0.0.1:${base}`, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
    process.on('exit', () => d.process.kill())
    let said = ''
    d.process.stdout.on('data', text => (said += text))
    await until(() => {
      assert.equal(d.process.exitCode, null, said)
      return said.includes('Fault drill')
    }, 120_000)
    return d
  }

  url() {
    return `http://127.0.0.1:${this.ports[0]}/drill`
  }

  async end() {
    const gone = new Promise(done => this.process.once('exit', done))
    this.process.kill()
    await gone
  }
}

export class Browser {
  static async start() {
    const b = new Browser()
    b.chromium = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] })
    return b
  }

  /** A page of the console. What breaks its policy, fails in it, or goes elsewhere is noted. */
  async open(cluster, { node = 0, hash = '#/', width = 1280, height = 860, theme = 'light' } = {}) {
    const context = await this.chromium.newContext({ viewport: { width, height }, colorScheme: theme, acceptDownloads: true })
    await context.addInitScript(() => {
      globalThis.violations = []
      document.addEventListener('securitypolicyviolation', e => globalThis.violations.push(`${e.effectiveDirective} ${e.blockedURI} ${e.sample}`))
      globalThis.alert = () => globalThis.violations.push('alert was called')
    })
    const page = await context.newPage()
    page.faults = []
    page.on('pageerror', e => page.faults.push(e.message))
    page.on('console', m => {
      // A gateway that is gone is told of by the browser.
      if (m.type() === 'error' && !/ERR_CONNECTION_REFUSED|WebSocket connection to/.test(m.text())) page.faults.push(m.text())
    })
    const inside = new Set(cluster.ports.map(p => `127.0.0.1:${p}`))
    const seen = url => !url.startsWith('blob:') && !inside.has(new URL(url).host) && page.faults.push(`asked elsewhere: ${url}`)
    page.on('request', r => seen(r.url()))
    page.on('websocket', w => seen(w.url()))
    await page.goto(cluster.url(node) + hash)
    return page
  }

  /** Ends a page that must have had nothing to complain about. */
  async close(page) {
    assert.deepEqual(await page.evaluate(() => globalThis.violations), [])
    assert.deepEqual(page.faults, [])
    await page.context().close()
  }

  end() {
    return this.chromium.close()
  }
}

/** What is not usable by assistive technology is a failure: axe-core's rules of WCAG 2.1 AA; and so is what is too wide. */
export async function audit(page, name) {
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
  assert.ok(wider <= 0, `${name} is ${wider} pixels too wide`)
  await page.evaluate(readFileSync(new URL('../node_modules/axe-core/axe.min.js', import.meta.url), 'utf8'))
  const { violations } = await page.evaluate(() => globalThis.axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] }))
  assert.deepEqual(violations.map(v => `${name}: ${v.id}: ${v.nodes.slice(0, 2).map(n => n.html + ' ' + n.failureSummary).join(' | ')}`), [])
}

export const go = (page, hash) => page.evaluate(h => void (location.hash = h), hash)

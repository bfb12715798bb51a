// Real nodes on free loopback ports, in a temporary folder; ended by their process ids.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import WebSocket from 'ws'
import { Client, type ClientOptions, type WebSocketConstructor } from '../src/index.js'

const program = process.env.TRIMARAN_BIN ?? fileURLToPath(new URL('../../../../bin/trimaran', import.meta.url))

// Below the kernel's ephemeral range, so that no outgoing connection takes one between its choice and its use.
async function freePort(): Promise<number> {
  for (;;) {
    const port = 14000 + Math.floor(Math.random() * 17000)
    const free = await Promise.all([0, 100, 200].map(o => usable(port + o)))
    if (free.every(Boolean)) return port
  }
}
async function usable(port: number): Promise<boolean> {
  const tcp = await new Promise<boolean>(done => {
    const s = createServer().on('error', () => done(false))
    s.listen(port, '127.0.0.1', () => s.close(() => done(true)))
  })
  if (!tcp) return false
  return new Promise(done => {
    const s = createSocket('udp4').on('error', () => done(false))
    s.bind(port, '127.0.0.1', () => s.close(() => done(true)))
  })
}

export const wsConstructor = WebSocket as unknown as WebSocketConstructor

export class Cluster {
  readonly dir = mkdtempSync(join(tmpdir(), 'trimaran-js-'))
  ports: number[] = []
  private nodes: (ChildProcess | undefined)[] = []

  private args: string[] = []

  static async start(nodes = 3, ...args: string[]): Promise<Cluster> {
    if (!existsSync(program)) throw new Error(`${program} is not there: make build, or set TRIMARAN_BIN`)
    const c = new Cluster()
    c.args = args
    for (let i = 0; i < nodes; i++) c.ports.push(await freePort())
    for (let i = 0; i < nodes; i++) c.run(i, true)
    process.on('exit', () => c.nodes.forEach(n => n?.kill('SIGKILL')))
    await c.ready()
    return c
  }

  run(i: number, first = false): void {
    const log = openSync(join(this.dir, `n${i + 1}.log`), 'a')
    const args = [
      'serve', '--data', join(this.dir, `n${i + 1}`), '--node-id', `n${i + 1}`, '--listen', `127.0.0.1:${this.ports[i]}`,
      '--auto-create-topics=false', ...this.args,
    ]
    if (this.ports.length > 1) args.push('--join', this.ports.filter((_, k) => k !== i).map(p => `127.0.0.1:${p + 200}`).join(','))
    if (first) args.push('--bootstrap-expect', String(this.ports.length))
    this.nodes[i] = spawn(program, args, { stdio: ['ignore', log, log] })
  }

  /** Waits until every node serves. */
  async ready(): Promise<void> {
    const until = Date.now() + 120_000
    for (const [i, port] of this.ports.entries()) {
      for (;;) {
        const n = this.nodes[i]
        if (!n) break
        if (n.exitCode !== null) throw new Error(`node ${i + 1} ended: ${readFileSync(join(this.dir, `n${i + 1}.log`), 'utf8')}`)
        const ok = await fetch(`http://127.0.0.1:${port}/readyz`).then(r => r.ok, () => false)
        if (ok) break
        if (Date.now() > until) throw new Error(`node ${i + 1} is not ready`)
        await new Promise(done => setTimeout(done, 50))
      }
    }
  }

  /** Runs the command line tool at a node's Unix socket, as its super user. */
  tool(i: number, args: string[], input = ''): string {
    return execFileSync(program, [...args, '--brokers', `unix:${join(this.dir, `n${i + 1}`)}`], { encoding: 'utf8', input })
  }

  gateway(i: number): string {
    return `ws://127.0.0.1:${this.ports[i]}/`
  }

  /** A client that begins with node `first`. */
  client(first = 0, o: Partial<ClientOptions> = {}): Client {
    const gateways = this.ports.map((_, i) => this.gateway((i + first) % this.ports.length))
    return new Client({ gateways, WebSocket: wsConstructor, ...o })
  }

  /** Has a node hang: its connections stay, and nothing is answered. */
  pause(i: number): void {
    this.nodes[i]!.kill('SIGSTOP')
  }
  resume(i: number): void {
    this.nodes[i]!.kill('SIGCONT')
  }

  kill(i: number): void {
    this.nodes[i]!.kill('SIGKILL')
    this.nodes[i] = undefined
  }

  async end(): Promise<void> {
    const gone = this.nodes.map(n => n && new Promise(done => n.once('exit', done)))
    for (const n of this.nodes) n?.kill('SIGKILL')
    await Promise.all(gone)
    rmSync(this.dir, { recursive: true, force: true })
  }
}

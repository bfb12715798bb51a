// One connection to one gateway: Kafka messages over a WebSocket, answers in the order of the requests.
import { ApiVersions } from './apis.js'
import { Reader, Writer, encode } from './bytes.js'
import { KafkaError, check, corrupt } from './errors.js'
import { tags, type Api } from './schema.js'
import type { Sasl } from './sasl.js'
import { abortable } from './wait.js'

/** What of the WebSocket standard the client uses. */
export interface WebSocketLike {
  binaryType: string
  onopen: ((event: any) => void) | null
  onmessage: ((event: any) => void) | null
  onclose: ((event: any) => void) | null
  onerror: ((event: any) => void) | null
  send(data: any): void
  close(): void
  readonly readyState?: number
}
export type WebSocketConstructor = new (url: string) => WebSocketLike

export interface ConnectionOptions {
  WebSocket: WebSocketConstructor
  clientId: string
  sasl?: Sasl
  maxAnswerBytes: number
  timeoutMs: number
}

/** A request as it goes into one WebSocket message. */
export function encodeRequest<Q>(api: Api<Q, any>, correlationId: number, clientId: string, body: Q): Uint8Array {
  const w = new Writer(api.flexible)
  w.i32(0)
  w.i16(api.key)
  w.i16(api.version)
  w.i32(correlationId)
  const id = encode(clientId)
  w.i16(id.length)
  w.raw(id)
  tags.write(w, [])
  api.request.write(w, body)
  w.patch(0, w.at - 4)
  return w.done()
}

/** The correlation id of an answer, and a reader of what follows. */
export function openAnswer(message: Uint8Array): [number, Reader] {
  const r = new Reader(message)
  if (r.i32() !== r.left) throw corrupt('the size disagrees with the WebSocket message')
  return [r.i32(), r]
}

/** The body of an answer, all of it. */
export function decodeAnswer<A>(api: Api<any, A>, body: Uint8Array): A {
  const r = new Reader(body, api.flexible)
  // ApiVersions is answered with the old header, and in version 0 when its version is not known.
  if (api.key !== 18) tags.read(r)
  else if (r.left > 1) check(r.view.getInt16(0))
  const answer = api.response.read(r)
  r.end()
  return answer
}

interface Pending {
  id: number
  timer: ReturnType<typeof setTimeout>
  resolve(body: Uint8Array): void
  reject(e: unknown): void
}

export class Connection {
  closed = false
  onclose: (e: KafkaError) => void = () => {}
  private id = 0
  private pending: Pending[] = []
  private renewal?: ReturnType<typeof setTimeout>
  private versions = new Map<number, [min: number, max: number]>()

  private constructor(
    readonly gateway: string,
    private ws: WebSocketLike,
    private options: ConnectionOptions,
  ) {}

  /** Connects, asks for the APIs and authenticates. */
  static async open(gateway: string, options: ConnectionOptions, signal?: AbortSignal): Promise<Connection> {
    signal?.throwIfAborted()
    const ws = new options.WebSocket(gateway)
    ws.binaryType = 'arraybuffer'
    const c = new Connection(gateway, ws, options)
    ws.onerror = () => {} // what happened is in the close event, or nowhere
    ws.onclose = e => c.fail(new KafkaError(13, `${gateway}: ${e?.reason || `the connection was closed (${e?.code})`}`))
    const broken = new Promise<never>((_, reject) => (c.onclose = reject))
    ws.onmessage = e => c.receive(e.data)
    const timer = setTimeout(() => c.fail(new KafkaError(13, `${gateway} does not answer`)), options.timeoutMs)
    const enter = async (): Promise<void> => {
      await new Promise<void>(resolve => (ws.onopen = () => resolve()))
      const { apis } = await c.call(ApiVersions, { softwareName: 'trimaran-js', softwareVersion: '0.1.0' }, options.timeoutMs, signal)
      for (const a of apis) c.versions.set(a.key, [a.min, a.max])
      if (options.sasl) await c.login(options.sasl, signal)
    }
    try {
      // A token may never come, and the connection may break while it is waited for.
      await abortable(Promise.race([enter(), broken]), signal)
      return c
    } catch (e) {
      c.fail(new KafkaError(13, `${gateway} was given up`, { cause: e }))
      throw e
    } finally {
      clearTimeout(timer)
    }
  }

  /** Logs in, and again before the session ends (KIP-368): other requests go on meanwhile. */
  private async login(sasl: Sasl, signal?: AbortSignal): Promise<void> {
    const { login } = await import('./sasl.js')
    const lifetimeMs = await login(sasl, (api, request) => this.call(api, request, this.options.timeoutMs, signal))
    // What ends sooner, such as the last moments of a token that is not replaced, ends.
    if (lifetimeMs < 5000 || this.closed) return
    const inMs = Math.min(lifetimeMs * 0.8, 2 ** 31 - 1)
    this.renewal = setTimeout(() => this.login(sasl).catch(e => this.fail(e)), inMs)
  }

  /** Sends one request and gives its answer. Who aborts stops waiting; the request is not taken back. */
  async call<Q, A>(api: Api<Q, A>, request: Q, timeoutMs: number, signal?: AbortSignal): Promise<A> {
    signal?.throwIfAborted()
    if (this.closed) throw new KafkaError(13, `${this.gateway}: the connection is closed`)
    const known = this.versions.get(api.key)
    // Trimaran's own are not listed.
    if (this.versions.size && api.key < 21586 && !(known && known[0] <= api.version && api.version <= known[1])) {
      throw new KafkaError(35, `the cluster does not serve API ${api.key} in version ${api.version}`)
    }
    const id = (this.id = (this.id + 1) & 0x7fffffff)
    const frame = encodeRequest(api, id, this.options.clientId, request)
    const answered = new Promise<Uint8Array>((resolve, reject) => {
      // Answers come in order, so nothing comes behind one that does not.
      const timer = setTimeout(
        () => this.fail(new KafkaError(7, `${this.gateway}: no answer to API ${api.key} within ${timeoutMs} ms`)),
        timeoutMs,
      )
      this.pending.push({ id, timer, resolve, reject })
    })
    answered.catch(() => {})
    try {
      // A browser says it on the page's console, and nothing to who sends, where it is closing.
      if ((this.ws.readyState ?? 1) > 1) throw new Error('the connection is closing')
      this.ws.send(frame)
    } catch (e) {
      this.fail(new KafkaError(13, `${this.gateway}: cannot send`, { cause: e }))
    }
    const body = await abortable(answered, signal)
    try {
      return decodeAnswer(api, body)
    } catch (e) {
      // Only what cannot be read makes the connection suspect.
      if ((e as KafkaError).code === 2) this.fail(e as KafkaError)
      throw e
    }
  }

  private receive(data: unknown): void {
    if (this.closed) return
    try {
      // Of a text it would be an array of the number that it is.
      if (!(data instanceof ArrayBuffer)) throw corrupt('a message of text')
      const message = new Uint8Array(data)
      if (message.length > this.options.maxAnswerBytes) throw new KafkaError(10, `an answer of ${message.length} bytes`)
      const [id, r] = openAnswer(message)
      const p = this.pending.shift()
      if (p) clearTimeout(p.timer)
      if (p?.id !== id) {
        const e = corrupt('an answer to something else')
        p?.reject(e)
        throw e
      }
      p.resolve(message.subarray(r.at))
    } catch (e) {
      this.fail(e as KafkaError)
    }
  }

  private fail(e: KafkaError): void {
    if (this.closed) return
    this.closed = true
    clearTimeout(this.renewal)
    for (const p of this.pending) {
      clearTimeout(p.timer)
      p.reject(e)
    }
    this.pending = []
    this.onclose(e)
    try {
      this.ws.close()
    } catch {
      // It is over anyway.
    }
  }

  close(): void {
    this.fail(new KafkaError(13, 'the client closed the connection'))
  }
}

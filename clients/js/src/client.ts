// The client: gateways, lanes to them, and what is asked over and over until it is answered.
import { ListOffsets, Metadata } from './apis.js'
import { Connection, type WebSocketConstructor } from './connection.js'
import { KafkaError, check, retriable } from './errors.js'
import { Producer, type ProducerOptions } from './producer.js'
import type { ConsumedRecord } from './records.js'
import type { Sasl } from './sasl.js'
import type { Api } from './schema.js'
import { isolationLevel, tail, type Isolation, type TailOptions } from './tail.js'
import { abortable, backoff, sleep, within } from './wait.js'

export interface ClientEvent {
  type: 'connected' | 'lost' | 'refused'
  gateway: string
  error?: Error
}

export interface ClientOptions {
  /** URLs of any of the cluster's nodes, such as `ws://127.0.0.1:9093/`; each alone is enough while it lives. */
  gateways: string[]
  /** The platform's own when there is none. */
  WebSocket?: WebSocketConstructor
  clientId?: string
  sasl?: Sasl
  /** How long one call may take, with all that is tried again; 30,000 ms */
  timeoutMs?: number
  /** How long an answer may take; 10,000 ms */
  requestTimeoutMs?: number
  /** How long connecting to one gateway may take; 3,000 ms */
  connectTimeoutMs?: number
  /** Topics that do not exist are created when they are written to, if the cluster allows it; false */
  autoCreateTopics?: boolean
  /** Larger answers are refused; 100 MiB */
  maxAnswerBytes?: number
  /**
   * What one compressed batch may decompress to, and those of one answer together: what is beyond is asked for again;
   * 64 MiB
   */
  maxDecompressedBytes?: number
  /** Told about connections, for a display. */
  onEvent?: (event: ClientEvent) => void
}

export interface CallOptions {
  signal?: AbortSignal
  /** In place of the client's: what takes longer fails with REQUEST_TIMED_OUT, and may have been done. */
  timeoutMs?: number
}

/** @internal */
export interface LaneCall extends CallOptions {
  /** Called when the request may have reached the cluster. */
  onSend?: () => void
  /** Beyond the usual time, since the cluster waits before it answers. */
  waitsMs?: number
  /** Less than the usual time: an answer that is later is of no use. */
  limitMs?: number
}

/** Where to begin: an offset, or the first record that is not older than a time. */
export type Position = 'earliest' | 'latest' | { offset: bigint } | { timestamp: number }

const noId = new Uint8Array(16)
// A gateway that has not answered by then gets company.
const staggerMs = 300

/** A connection that is made again when it is lost, at another gateway. Answers wait for those in front of them, so
 * who waits long has a lane of its own. @internal */
export class Lane {
  private connection?: Connection
  private opening?: Promise<Connection>
  private closed = new AbortController()
  constructor(private client: Client) {}

  async call<Q, A>(api: Api<Q, A>, request: Q, o: LaneCall = {}): Promise<A> {
    this.closed.signal.throwIfAborted()
    const c = await abortable(this.open(), o.signal)
    o.onSend?.()
    const { requestTimeoutMs } = this.client.options
    return c.call(api, request, Math.min(requestTimeoutMs, o.limitMs ?? Infinity) + (o.waitsMs ?? 0), o.signal)
  }

  private open(): Promise<Connection> {
    if (this.connection && !this.connection.closed) return Promise.resolve(this.connection)
    this.opening ??= this.client
      .connect(this.closed.signal)
      .then(c => (this.connection = c))
      .finally(() => (this.opening = undefined))
    return this.opening
  }

  close(): void {
    this.closed.abort(new KafkaError(13, 'the client is closed', { retriable: false }))
    this.connection?.close()
  }
}

export class Client {
  /** @internal */
  readonly options: Required<Omit<ClientOptions, 'sasl' | 'onEvent'>> & ClientOptions
  private next = 0
  private lanes = new Set<Lane>()
  /** @internal */
  main: Lane

  constructor(options: ClientOptions) {
    this.options = {
      WebSocket: (globalThis as any).WebSocket,
      clientId: 'trimaran-js',
      timeoutMs: 30_000,
      requestTimeoutMs: 10_000,
      connectTimeoutMs: 3_000,
      autoCreateTopics: false,
      maxAnswerBytes: 100 << 20,
      maxDecompressedBytes: 64 << 20,
      ...options,
    }
    if (!this.options.WebSocket) throw new TypeError('this platform has no WebSocket: give the client one')
    if (!options.gateways.length) throw new TypeError('no gateways')
    this.main = this.lane()
  }

  /** @internal */
  lane(): Lane {
    const lane = new Lane(this)
    this.lanes.add(lane)
    return lane
  }

  /** @internal */
  drop(lane: Lane): void {
    lane.close()
    this.lanes.delete(lane)
  }

  /** Ends all connections. What waits for an answer fails. */
  close(): void {
    for (const lane of this.lanes) this.drop(lane)
  }

  /** Connects to the first gateway that answers, beginning with the one that did last. @internal */
  async connect(signal: AbortSignal): Promise<Connection> {
    const { gateways, onEvent } = this.options
    const start = this.next
    const rest = new AbortController()
    const stop = AbortSignal.any ? AbortSignal.any([signal, rest.signal]) : rest.signal
    const failed: unknown[] = []
    let started = 0
    let timer: ReturnType<typeof setTimeout>
    const opened = new Promise<Connection>((resolve, reject) => {
      const another = (): void => {
        if (started === gateways.length || stop.aborted) return
        const index = (start + started++) % gateways.length
        const gateway = gateways[index]
        clearTimeout(timer)
        timer = setTimeout(another, staggerMs)
        Connection.open(gateway, { ...this.options, timeoutMs: this.options.connectTimeoutMs }, stop).then(
          c => {
            if (stop.aborted || signal.aborted) return c.close()
            this.next = index
            c.onclose = error => {
              if (this.next === index) this.next = (index + 1) % gateways.length
              if (!signal.aborted) onEvent?.({ type: 'lost', gateway, error })
            }
            resolve(c)
            rest.abort()
            onEvent?.({ type: 'connected', gateway })
          },
          error => {
            if (stop.aborted) return
            onEvent?.({ type: 'refused', gateway, error })
            // Wrong credentials are wrong everywhere.
            if (error.code === 58 || error.code === 33 || error.code === 34) reject(error)
            if (failed.push(error) < gateways.length) return another()
            reject(error instanceof KafkaError ? error : new KafkaError(13, `no gateway can be reached`, { cause: error }))
          },
        )
      }
      another()
    })
    return abortable(opened, signal).finally(() => {
      clearTimeout(timer)
      rest.abort()
    })
  }

  /**
   * Does it until it succeeds, fails for good, or takes too long. A topic that does not exist is asked for again for
   * a moment, since a node may not have heard of it yet. @internal
   */
  retry<T>(what: (signal?: AbortSignal) => Promise<T>, o: CallOptions = {}): Promise<T> {
    const began = Date.now()
    const { signal, timeoutMs = this.options.timeoutMs } = o
    return within({ signal, timeoutMs }, async signal => {
      for (let attempt = 0; ; attempt++) {
        try {
          return await what(signal)
        } catch (e) {
          const wait = backoff(attempt)
          const limit = (e as KafkaError).code === 3 ? 1500 : timeoutMs
          if (signal?.aborted || !retriable(e) || Date.now() + wait - began > limit) throw e
          await sleep(wait, signal)
        }
      }
    })
  }

  /** One request that may be sent more than once. @internal */
  ask<Q, A>(api: Api<Q, A>, request: Q, verify: (a: A) => void, o: CallOptions = {}, lane = this.main): Promise<A> {
    return this.retry(async signal => {
      const a = await lane.call(api, request, { signal })
      verify(a)
      return a
    }, o)
  }

  /** What the cluster says of these topics, or of all. A topic that is not there has an `errorCode`. */
  async metadata(topics?: string[], o: CallOptions & { authorizedOperations?: boolean; create?: boolean } = {}) {
    return this.ask(
      Metadata,
      {
        topics: topics?.map(topic => ({ topicId: noId, topic })) ?? null,
        allowAutoTopicCreation: o.create ?? false,
        includeTopicAuthorizedOperations: o.authorizedOperations ?? false,
      },
      a => {
        for (const t of a.topics) if (t.errorCode === 5) check(5, `${t.topic} is not there yet`)
      },
      o,
    )
  }

  /** The numbers of a topic's partitions. */
  async partitions(topic: string, o: CallOptions & { create?: boolean } = {}): Promise<number[]> {
    return this.retry(async signal => {
      const { topics } = await this.metadata([topic], { ...o, signal })
      check(topics[0]?.errorCode ?? 3, `topic ${topic}: ${topics.length ? topics[0].errorCode : 'no answer'}`)
      return topics[0].partitions.map(p => p.partition).sort((a, b) => a - b)
    }, o)
  }

  /**
   * Offsets of one topic's partitions, all of them when none is named: the log's start or end, of the first record not
   * older than a time, or of the first with the largest time. -1 where there is none. Toward who reads what is committed
   * the end is where the first transaction begins that is not decided yet.
   */
  async listOffsets(
    topic: string,
    at: 'earliest' | 'latest' | 'maxTimestamp' | number,
    partitions?: number[],
    o: CallOptions & Isolation = {},
  ): Promise<Map<number, { offset: bigint; timestamp: number }>> {
    partitions ??= await this.partitions(topic, o)
    const timestamp = at === 'latest' ? -1n : at === 'earliest' ? -2n : at === 'maxTimestamp' ? -3n : BigInt(at)
    const request = {
      replicaId: -1,
      isolationLevel: isolationLevel(o),
      topics: [{ topic, partitions: partitions.map(partition => ({ partition, currentLeaderEpoch: -1, timestamp })) }],
    }
    const all = new Map<number, { offset: bigint; timestamp: number }>()
    await this.ask(
      ListOffsets,
      request,
      a => {
        for (const p of a.topics[0]?.partitions ?? []) {
          check(p.errorCode, `${topic}/${p.partition}`)
          all.set(p.partition, { offset: p.offset, timestamp: Number(p.timestamp) })
        }
        for (const p of partitions) if (!all.has(p)) throw new KafkaError(2, `no answer about ${topic}/${p}`)
      },
      o,
    )
    return all
  }

  producer(options: ProducerOptions = {}): Producer {
    return new Producer(this, options)
  }

  /** The records of topics as they come. Ends when its signal is aborted or the loop is left. */
  tail(options: TailOptions): AsyncGenerator<ConsumedRecord, void, void> {
    return tail(this, options)
  }
}

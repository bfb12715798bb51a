// Reading: one Fetch in flight, the next one is sent when its records are asked for or, at most one ahead, worked on.
import { Fetch } from './apis.js'
import type { Client, Lane, Position } from './client.js'
import { KafkaError, check, retriable } from './errors.js'
import { codecs } from './compression.js'
import { Room, decodeBatches, type Batch, type ConsumedRecord } from './records.js'
import { backoff, sleep } from './wait.js'

/** Which records of transactions are read (`isolation.level`). */
export interface Isolation {
  /**
   * 'read_committed': those that are committed, up to the first transaction that is not decided yet. 'read_uncommitted',
   * the default: all, aborted ones as well.
   */
  isolation?: 'read_uncommitted' | 'read_committed'
}

export interface TailOptions extends Isolation {
  topics: string | string[]
  /** Of each topic; all when there are none, and then those that are added later, too. */
  partitions?: number[]
  /** 'latest' */
  from?: Position
  /** Where to begin in some partitions, before `from` is looked at. */
  offsets?: { topic: string; partition: number; offset: bigint }[]
  /** 'end': stop where the topics ended when reading began. */
  until?: 'end'
  /** Where to go on when the offset is not in the log any more; without it the tail fails with OFFSET_OUT_OF_RANGE. */
  reset?: 'earliest' | 'latest'
  /** How long the cluster waits for records before it answers with none; 500 ms */
  maxWaitMs?: number
  /** Of one answer; 4 MiB. A batch that is larger comes nevertheless. */
  maxBytes?: number
  signal?: AbortSignal
}

/** @internal */
export interface Cursor {
  topic: string
  partition: number
  offset: bigint
  end?: bigint
}

export interface FetcherOptions extends Isolation {
  maxWaitMs?: number
  maxBytes?: number
  reset?: 'earliest' | 'latest'
}

const leastPatienceMs = 3000

/** Fetches for a set of partitions, whatever happens to gateways. @internal */
export class Fetcher {
  private lane: Lane
  private turn = 0
  // How often in a row a partition's bytes could not be understood.
  private corrupt = new Map<Cursor, number>()
  // How long an answer may take: one that hangs is left soon, and a slow line gets more time with each attempt.
  private patienceMs = leastPatienceMs
  // What one partition met when others had records, to be told before they have more.
  private failure?: unknown
  constructor(
    private client: Client,
    readonly cursors: Cursor[],
    private o: FetcherOptions,
  ) {
    this.lane = client.lane()
    // A page whose node is gone reads on with another one, so it has what decompresses before it needs it.
    codecs().catch(() => {})
  }

  /** The next batches, none if there was nothing in time. Cursors are behind them then. */
  async next(signal?: AbortSignal): Promise<Batch[]> {
    for (let attempt = 0, unknownSince = 0; ; attempt++) {
      signal?.throwIfAborted()
      try {
        return await this.fetch(signal)
      } catch (e) {
        signal?.throwIfAborted()
        if (!retriable(e)) throw e
        if ((e as KafkaError).code === 3) {
          unknownSince ||= Date.now()
          if (Date.now() - unknownSince > 1500) throw e
        }
        await sleep(backoff(attempt), signal)
      }
    }
  }

  private async fetch(signal?: AbortSignal): Promise<Batch[]> {
    const { maxWaitMs = 500, maxBytes = 4 << 20, isolation } = this.o
    const before = this.failure
    this.failure = undefined
    if (before) throw before
    // Another one is first each time, so that none starves when an answer is full.
    const open = this.cursors.filter(c => c.end === undefined || c.offset < c.end)
    if (!open.length) return []
    this.turn %= open.length
    const topics = new Map<string, Cursor[]>()
    for (const c of [...open.slice(this.turn), ...open.slice(0, this.turn)]) {
      const of = topics.get(c.topic)
      if (of) of.push(c)
      else topics.set(c.topic, [c])
    }
    this.turn++
    const asked = Date.now()
    const call = this.lane.call(
      Fetch,
      {
        replicaId: -1, maxWaitMs, minBytes: 1, maxBytes, isolationLevel: isolationLevel(this.o), sessionId: 0, sessionEpoch: -1,
        topics: [...topics].map(([topic, cursors]) => ({
          topic,
          partitions: cursors.map(c => ({
            partition: c.partition, currentLeaderEpoch: -1, fetchOffset: c.offset, lastFetchedEpoch: -1, logStartOffset: -1n,
            maxBytes,
          })),
        })),
        forgotten: [], rackId: '',
      },
      { signal, waitsMs: maxWaitMs, limitMs: this.patienceMs },
    )
    const answer = await call.catch(e => {
      if (e.code === 7) this.patienceMs *= 2
      throw e
    })
    this.patienceMs = Math.max(leastPatienceMs, 4 * (Date.now() - asked - maxWaitMs))
    check(answer.errorCode)
    const batches: Batch[] = []
    const room = new Room(this.client.options.maxDecompressedBytes)
    let failure: unknown
    for (const t of answer.topics) {
      for (const p of t.partitions) {
        const c = topics.get(t.topic)?.find(c => c.partition === p.partition)
        if (!c) throw new KafkaError(2, 'an answer about another partition', { retriable: false })
        try {
          if (p.errorCode === 1 && this.o.reset) {
            const at = await this.client.listOffsets(c.topic, this.o.reset, [c.partition], { signal, isolation })
            c.offset = at.get(c.partition)!.offset
            continue
          }
          check(p.errorCode, `${c.topic}/${c.partition} at ${c.offset}`)
          if (!p.records) continue
          const aborted = isolationLevel(this.o) ? p.abortedTransactions ?? [] : []
          for (const b of await decodeBatches(p.records, c.topic, c.partition, c.offset, room, aborted)) {
            if (b.lastOffset < c.offset) continue
            c.offset = b.lastOffset + 1n
            if (!b.control && !b.aborted) batches.push(b)
          }
          this.corrupt.delete(c)
        } catch (e) {
          failure ??= e
          if ((e as KafkaError).code !== 2) continue
          // What is wrong three times is wrong in the log.
          const times = (this.corrupt.get(c) ?? 0) + 1
          this.corrupt.set(c, times)
          if (times > 2) failure = new KafkaError(2, (e as Error).message, { cause: e, retriable: false })
        }
      }
    }
    if (failure && !batches.length) throw failure
    // What other partitions gave is not lost. This one is asked for again where that may help.
    if (failure && !retriable(failure)) this.failure = failure
    return batches
  }

  get done(): boolean {
    return this.cursors.every(c => c.end !== undefined && c.offset >= c.end)
  }

  close(): void {
    this.client.drop(this.lane)
  }
}

/** @internal */
export const isolationLevel = (o: Isolation): number => (o.isolation === 'read_committed' ? 1 : 0)

/** @internal */
export async function positions(
  client: Client,
  topic: string,
  partitions: number[],
  from: Position,
  o: Isolation & { signal?: AbortSignal },
): Promise<Cursor[]> {
  if (typeof from === 'object' && 'offset' in from) return partitions.map(partition => ({ topic, partition, offset: from.offset }))
  const at = await client.listOffsets(topic, typeof from === 'object' ? from.timestamp : from, partitions, o)
  const cursors = partitions.map(partition => ({ topic, partition, offset: at.get(partition)!.offset }))
  // No record is so young: the end.
  const late = cursors.filter(c => c.offset < 0n)
  if (late.length) {
    const end = await client.listOffsets(topic, 'latest', late.map(c => c.partition), o)
    for (const c of late) c.offset = end.get(c.partition)!.offset
  }
  return cursors
}

const refreshMs = 30_000

export async function* tail(client: Client, o: TailOptions): AsyncGenerator<ConsumedRecord, void, void> {
  const { from = 'latest', signal, isolation } = o
  const topics = [o.topics].flat()
  const cursors: Cursor[] = []
  for (const topic of topics) {
    const partitions = o.partitions ?? (await client.partitions(topic, { signal }))
    const given = o.offsets?.filter(c => c.topic === topic && partitions.includes(c.partition)) ?? []
    const rest = partitions.filter(p => !given.some(c => c.partition === p))
    cursors.push(...given.map(c => ({ ...c })))
    if (rest.length) cursors.push(...(await positions(client, topic, rest, from, { signal, isolation })))
    if (o.until) {
      const ends = await client.listOffsets(topic, 'latest', partitions, { signal, isolation })
      for (const c of cursors) if (c.topic === topic) c.end = ends.get(c.partition)!.offset
    }
  }
  const fetcher = new Fetcher(client, cursors, o)
  const stop = new AbortController()
  const onAbort = (): void => stop.abort(signal!.reason)
  signal?.addEventListener('abort', onAbort)
  if (signal?.aborted) onAbort()
  try {
    let looked = Date.now()
    let ahead: Promise<Batch[]> | undefined
    while (ahead || !fetcher.done) {
      const batches = await (ahead ?? fetcher.next(stop.signal))
      ahead = undefined
      if (!o.partitions && !o.until && Date.now() - looked > refreshMs) {
        looked = Date.now()
        for (const topic of topics) {
          const now = await client.partitions(topic, { signal: stop.signal }).catch(() => [])
          for (const partition of now) {
            if (!cursors.some(c => c.topic === topic && c.partition === partition)) cursors.push({ topic, partition, offset: 0n })
          }
        }
      }
      if (batches.length && !fetcher.done) {
        ahead = fetcher.next(stop.signal)
        ahead.catch(() => {})
      }
      for (const b of batches) {
        for (const r of b.records) {
          if (o.until && past(cursors, r)) break
          yield r
          stop.signal.throwIfAborted()
        }
      }
    }
  } finally {
    signal?.removeEventListener('abort', onAbort)
    stop.abort(new KafkaError(13, 'the tail was left'))
    fetcher.close()
  }
}

const past = (cursors: Cursor[], r: ConsumedRecord): boolean =>
  cursors.some(c => c.topic === r.topic && c.partition === r.partition && c.end !== undefined && r.offset >= c.end)

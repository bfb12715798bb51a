// A member of a consumer group, by the classic protocol, with the range assignor, which the leader computes.
import {
  Assignment, FindCoordinator, Heartbeat, JoinGroup, LeaveGroup, OffsetCommit, OffsetFetch, Subscription, SyncGroup,
} from './apis-group.js'
import { Reader, Writer } from './bytes.js'
import type { CallOptions, Client, Lane } from './client.js'
import { KafkaError, check, retriable } from './errors.js'
import type { ConsumedRecord } from './records.js'
import type { Codec, Of } from './schema.js'
import { Fetcher, positions, type Cursor, type FetcherOptions } from './tail.js'
import { backoff, sleep } from './wait.js'

export interface TopicPartition {
  topic: string
  partition: number
}

export interface GroupOptions extends Omit<FetcherOptions, 'reset'> {
  groupId: string
  topics: string | string[]
  /** Where to begin, and to go on when an offset is gone, in a partition that has no committed one: 'latest' */
  from?: 'earliest' | 'latest'
  /** A static member (KIP-345): it may be away for the session timeout without a rebalance. */
  groupInstanceId?: string
  /** A member that was silent for so long is out; 10,000 ms */
  sessionTimeoutMs?: number
  /** How long a member may take until it joins a rebalance, so how long a record may be worked on; 60,000 ms */
  rebalanceTimeoutMs?: number
  /** Commits what was worked on: a record counts when the next one is asked for. 5,000 ms; 0: only `commit` does */
  autoCommitMs?: number
  /** Records of these come next. Awaited. */
  onAssigned?: (partitions: TopicPartition[]) => void | Promise<void>
  /** The last moment to commit these. Awaited. */
  onRevoked?: (partitions: TopicPartition[]) => void | Promise<void>
  signal?: AbortSignal
}

type Join = Of<typeof JoinGroup.response>

const pack = <T>(c: Codec<T>, v: T): Uint8Array => {
  const w = new Writer()
  c.write(w, v)
  return w.done()
}

/**
 * `for await (const record of group)` joins, and leaves when the loop is left. Records come at least once: those behind
 * the last commit come again, to this member or another.
 */
export class Group implements AsyncIterable<ConsumedRecord> {
  private memberId = ''
  private generation = -1
  private lane?: Lane
  private stop = new AbortController()
  // The next offset of each partition that a record was given of, and those that are committed already.
  private given = new Map<string, Cursor>()
  private committed = new Map<string, bigint>()
  private running = false
  /** What this member has now. */
  assignment: TopicPartition[] = []

  constructor(
    private client: Client,
    private o: GroupOptions,
  ) {}

  async *[Symbol.asyncIterator](): AsyncGenerator<ConsumedRecord, void, void> {
    if (this.running) throw new TypeError('this member is read already')
    this.running = true
    const { autoCommitMs = 5000, signal, from = 'latest' } = this.o
    this.stop = new AbortController()
    const onAbort = (): void => this.stop.abort(signal!.reason)
    signal?.addEventListener('abort', onAbort)
    if (signal?.aborted) onAbort()
    this.lane = this.client.lane()
    try {
      for (;;) {
        const joined = await this.join()
        const turn = new AbortController() // until the next rebalance
        const beats = new AbortController()
        const onStop = (): void => turn.abort(this.stop.signal.reason)
        this.stop.signal.addEventListener('abort', onStop)
        const heart = this.beat(joined, turn, beats.signal)
        let fetcher: Fetcher | undefined
        try {
          this.stop.signal.throwIfAborted()
          fetcher = new Fetcher(this.client, await this.cursors(from, turn.signal), { ...this.o, reset: from })
          await this.o.onAssigned?.(this.assignment)
          let last = Date.now()
          while (!turn.signal.aborted) {
            const batches = this.assignment.length ? await fetcher.next(turn.signal) : await sleep(500, turn.signal).then(() => [])
            for (const b of batches) {
              for (const r of b.records) {
                if (turn.signal.aborted) break
                const key = r.topic + '/' + r.partition
                const before = this.given.get(key)
                this.given.set(key, { topic: r.topic, partition: r.partition, offset: r.offset + 1n })
                let back = false
                try {
                  yield r
                  back = true
                } finally {
                  // Who leaves the loop has not said that it is done with this one.
                  if (!back && this.committed.get(key) !== r.offset + 1n) {
                    if (before) this.given.set(key, before)
                    else this.given.delete(key)
                  }
                }
                if (autoCommitMs && Date.now() - last >= autoCommitMs) {
                  last = Date.now()
                  await this.tryCommit()
                }
              }
            }
            if (autoCommitMs && Date.now() - last >= autoCommitMs) {
              last = Date.now()
              await this.tryCommit()
            }
          }
        } catch (e) {
          if (!turn.signal.aborted) throw e
        } finally {
          this.stop.signal.removeEventListener('abort', onStop)
          fetcher?.close()
          await this.o.onRevoked?.(this.assignment)
          if (autoCommitMs) await this.tryCommit()
          this.assignment = []
          this.given.clear()
          this.committed.clear()
          beats.abort()
          await heart
        }
        this.stop.signal.throwIfAborted()
        if (turn.signal.reason?.code !== 27) throw turn.signal.reason
      }
    } finally {
      signal?.removeEventListener('abort', onAbort)
      await this.leave()
      this.client.drop(this.lane)
      this.lane = undefined
      this.running = false
    }
  }

  /** Commits these offsets (of the next record to read), or what was given so far, the record at hand included. */
  async commit(offsets?: { topic: string; partition: number; offset: bigint; metadata?: string }[], o: CallOptions = {}): Promise<void> {
    const changed = offsets ?? [...this.given.values()].filter(c => this.committed.get(c.topic + '/' + c.partition) !== c.offset)
    if (!changed.length) return
    if (!this.lane) throw new KafkaError(25, 'not a member now')
    const topics = new Map<string, typeof changed>()
    for (const c of changed) topics.set(c.topic, [...(topics.get(c.topic) ?? []), { ...c }])
    await this.client.ask(
      OffsetCommit,
      {
        groupId: this.o.groupId, generationId: this.generation, memberId: this.memberId,
        groupInstanceId: this.o.groupInstanceId ?? null,
        topics: [...topics].map(([topic, partitions]) => ({
          topic,
          partitions: partitions.map(c => ({
            partition: c.partition, offset: c.offset, leaderEpoch: -1, metadata: (c as { metadata?: string }).metadata ?? null,
          })),
        })),
      },
      a => {
        for (const t of a.topics) for (const p of t.partitions) check(p.errorCode, `committing ${t.topic}/${p.partition}`)
      },
      { timeoutMs: this.o.sessionTimeoutMs ?? 10_000, ...o },
      this.lane,
    )
    for (const of of topics.values()) for (const c of of) this.committed.set(c.topic + '/' + c.partition, c.offset)
  }

  // Who has been taken for dead cannot commit; the records come again.
  private async tryCommit(): Promise<void> {
    await this.commit().catch(e => {
      if (!(e instanceof KafkaError)) throw e
    })
  }

  private async join(): Promise<Join> {
    const { groupId, groupInstanceId = null, sessionTimeoutMs = 10_000, rebalanceTimeoutMs = 60_000 } = this.o
    const signal = this.stop.signal
    const lane = this.lane!
    const topics = [this.o.topics].flat()
    for (let attempt = 0; ; attempt++) {
      signal.throwIfAborted()
      try {
        await this.client.ask(FindCoordinator, { key: groupId, keyType: 0 }, a => check(a.errorCode, a.errorMessage), { signal }, lane)
        const j = await lane.call(
          JoinGroup,
          {
            groupId, sessionTimeoutMs, rebalanceTimeoutMs, memberId: this.memberId, groupInstanceId, protocolType: 'consumer',
            protocols: [{ name: 'range', metadata: pack(Subscription, { version: 0, topics, userData: null }) }],
          },
          { signal, waitsMs: rebalanceTimeoutMs },
        )
        if (j.memberId) this.memberId = j.memberId
        check(j.errorCode)
        this.generation = j.generationId
        const assignments = j.leader === j.memberId ? await this.assign(j) : []
        const s = await lane.call(
          SyncGroup,
          {
            groupId, generationId: j.generationId, memberId: this.memberId, groupInstanceId, protocolType: 'consumer',
            protocolName: 'range', assignments,
          },
          { signal, waitsMs: rebalanceTimeoutMs },
        )
        check(s.errorCode)
        this.assignment = s.assignment.length
          ? Assignment.read(new Reader(s.assignment)).topics.flatMap(t => t.partitions.map(partition => ({ topic: t.topic, partition })))
          : []
        return j
      } catch (e) {
        signal.throwIfAborted()
        const code = (e as KafkaError).code
        if (code === 25) this.memberId = ''
        if (code === 79) continue
        if (!retriable(e) && ![22, 25, 27].includes(code)) throw e
        await sleep(backoff(attempt), signal)
      }
    }
  }

  private async assign(j: Join): Promise<{ memberId: string; assignment: Uint8Array }[]> {
    const members = j.members.map(m => ({
      memberId: m.memberId,
      groupInstanceId: m.groupInstanceId,
      topics: Subscription.read(new Reader(m.metadata)).topics,
    }))
    const counts = await this.partitionsOf([...new Set(members.flatMap(m => m.topics))])
    const shares = range(members, counts)
    this.seen = counts
    return members.map(m => ({
      memberId: m.memberId,
      assignment: pack(Assignment, { version: 0, topics: shares.get(m.memberId)!, userData: null }),
    }))
  }

  private seen = new Map<string, number[]>()

  // A topic that is not there, or that this member may not see, has none yet.
  private async partitionsOf(topics: string[]): Promise<Map<string, number[]>> {
    const found = new Map(topics.map(topic => [topic, [] as number[]]))
    if (!topics.length) return found
    const ask = async (signal?: AbortSignal): Promise<void> => {
      const all = (await this.client.metadata(topics, { signal })).topics
      for (const t of all) if (found.has(t.topic!)) found.set(t.topic!, t.partitions.map(p => p.partition).sort((a, b) => a - b))
      for (const t of all) if (t.errorCode === 3) check(3, t.topic)
    }
    await this.client.retry(ask, { signal: this.stop.signal }).catch(e => {
      if (e.code !== 3) throw e
    })
    return found
  }

  private async cursors(from: 'earliest' | 'latest', signal: AbortSignal): Promise<Cursor[]> {
    if (!this.assignment.length) return []
    const topics = new Map<string, number[]>()
    for (const a of this.assignment) topics.set(a.topic, [...(topics.get(a.topic) ?? []), a.partition])
    const { topics: found } = await this.client.ask(
      OffsetFetch,
      { groupId: this.o.groupId, topics: [...topics].map(([topic, partitions]) => ({ topic, partitions })), requireStable: true },
      a => {
        check(a.errorCode)
        for (const t of a.topics) for (const p of t.partitions) check(p.errorCode, `offset of ${t.topic}/${p.partition}`)
      },
      { signal },
      this.lane,
    )
    const cursors: Cursor[] = []
    for (const [topic, partitions] of topics) {
      const rest: number[] = []
      for (const partition of partitions) {
        const at = found.find(t => t.topic === topic)?.partitions.find(p => p.partition === partition)
        if (at && at.offset >= 0n) cursors.push({ topic, partition, offset: at.offset })
        else rest.push(partition)
      }
      if (rest.length) cursors.push(...(await positions(this.client, topic, rest, from, { signal, isolation: this.o.isolation })))
    }
    return cursors
  }

  /** Says that the member lives, and hears when it has to join again. */
  private async beat(j: Join, turn: AbortController, until: AbortSignal): Promise<void> {
    const { groupId, groupInstanceId = null, sessionTimeoutMs = 10_000 } = this.o
    let looked = Date.now()
    while (!until.aborted) {
      try {
        await sleep(Math.min(3000, sessionTimeoutMs / 4), until)
        const a = await this.lane!.call(
          Heartbeat,
          { groupId, generationId: j.generationId, memberId: this.memberId, groupInstanceId },
          // A gateway that hangs is left while there is time to find another.
          { signal: until, limitMs: sessionTimeoutMs / 3 },
        )
        check(a.errorCode)
        if (j.leader === j.memberId && Date.now() - looked > 30_000) {
          looked = Date.now()
          for (const [topic, now] of await this.partitionsOf([...this.seen.keys()])) {
            if (now.length !== this.seen.get(topic)!.length) turn.abort(new KafkaError(27, 'a topic has other partitions'))
          }
        }
      } catch (e) {
        if (until.aborted) return
        const code = (e as KafkaError).code
        if (code === 25) this.memberId = ''
        if ([22, 25, 27].includes(code)) turn.abort(new KafkaError(27, (e as Error).message, { cause: e }))
        else if (!retriable(e)) return turn.abort(e)
      }
    }
  }

  // A static member stays: it is expected back.
  private async leave(): Promise<void> {
    if (!this.memberId || this.o.groupInstanceId) return
    const member = { memberId: this.memberId, groupInstanceId: null }
    this.memberId = ''
    await this.lane!.call(LeaveGroup, { groupId: this.o.groupId, members: [member] }, { signal: AbortSignal.timeout(2000) }).catch(() => {})
  }
}

/** Kafka's range assignor: of each topic, the members in order get one run of partitions each. @internal */
export function range(
  members: { memberId: string; groupInstanceId: string | null; topics: string[] }[],
  partitions: Map<string, number[]>,
): Map<string, { topic: string; partitions: number[] }[]> {
  const shares = new Map(members.map(m => [m.memberId, [] as { topic: string; partitions: number[] }[]]))
  const order = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
  // Static members first, as in Kafka, so that they keep their places.
  const sorted = [...members].sort((a, b) =>
    a.groupInstanceId !== null && b.groupInstanceId !== null
      ? order(a.groupInstanceId, b.groupInstanceId)
      : a.groupInstanceId !== null ? -1 : b.groupInstanceId !== null ? 1 : order(a.memberId, b.memberId))
  for (const [topic, all] of partitions) {
    const takers = sorted.filter(m => m.topics.includes(topic))
    let at = 0
    takers.forEach((m, i) => {
      const n = Math.floor(all.length / takers.length) + (i < all.length % takers.length ? 1 : 0)
      if (n) shares.get(m.memberId)!.push({ topic, partitions: all.slice(at, at + n) })
      at += n
    })
  }
  return shares
}

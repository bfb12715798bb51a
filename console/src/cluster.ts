// What the cluster says of itself, asked every two seconds and kept for plots.
import type { Metadata } from 'trimaran/apis'
import type { Of } from 'trimaran/schema'
import { KafkaError } from 'trimaran'
import { client, guard, ops } from './link.js'
import { askOperations, askStatus } from './own.js'
import { Poll, Value } from './state.js'
import { count, plural } from './format.js'

// The JSON of API 21586 (package admin).
export interface Replica {
  node: string
  role: 'leader' | 'follower' | 'non-voter' | 'copying' | 'damaged' | 'offline'
  applied: number
  lag: number
  bytes: number
  catch_up?: { bytes: number; total: number; bytes_per_second: number }
  error?: string
  leaving?: boolean
}
export interface Partition {
  partition: number
  leader: string
  term: number
  log_start: number
  high_watermark: number
  replicas: Replica[]
}
export interface TopicStatus {
  name: string
  replication_factor: number
  configs?: Record<string, string>
  partitions: Partition[]
}
export interface Node {
  id: string
  client_address: string
  zone: string
  version: string
  alive: boolean
  leaders: number
  replicas: number
  state?: '' | 'draining' | 'leaving'
  disk_free: number
  disk_total: number
  disk_full?: boolean
  catalog_role: string
}
export interface Status {
  cluster_id: string
  controller: string
  confirmed: boolean
  unconfirmed?: string
  nodes: Node[]
  topics: TopicStatus[]
  group_shards?: Partition[]
}

/** Numbers over time, the last so many of them. */
export class Series {
  times: number[] = []
  values: number[] = []
  constructor(private most = 180) {}
  add(at: number, value: number): void {
    this.times.push(at)
    this.values.push(value)
    if (this.times.length > this.most) {
      this.times.shift()
      this.values.shift()
    }
  }
  get last(): number {
    return this.values.length ? this.values[this.values.length - 1] : NaN
  }
}

export interface Sum {
  records: number
  bytes: number
  messages: number
  /** partitions with something that is not as it should be */
  unhealthy: number
}

/** Totals of a topic: what its leaders have. */
export function sumOf(t: TopicStatus): Sum {
  const sum = { records: 0, bytes: 0, messages: 0, unhealthy: 0 }
  for (const p of t.partitions) {
    sum.records += p.high_watermark
    sum.messages += p.high_watermark - p.log_start
    sum.bytes += Math.max(0, ...p.replicas.map(r => r.bytes))
    if (!p.leader || p.replicas.some(r => troubled(r))) sum.unhealthy++
  }
  return sum
}
export const troubled = (r: Replica): boolean => r.role === 'copying' || r.role === 'damaged' || r.role === 'offline'

export const sums = new Map<string, Sum>()
export const rates = { records: new Series(), bytes: new Series(), topics: new Map<string, { records: number; bytes: number }>() }
let before: { at: number; sums: Map<string, Sum> } | undefined

function note(status: Status, at: number): void {
  const now = new Map(status.topics.map(t => [t.name, sumOf(t)]))
  sums.clear()
  for (const [name, s] of now) sums.set(name, s)
  if (before && at - before.at < 60_000) {
    const seconds = Math.max(0.001, (at - before.at) / 1000)
    let records = 0
    let bytes = 0
    rates.topics.clear()
    for (const [name, s] of now) {
      const was = before.sums.get(name)
      // A topic may have been made anew, and retention takes bytes away.
      if (!was || s.records < was.records) continue
      const rate = { records: (s.records - was.records) / seconds, bytes: Math.max(0, s.bytes - was.bytes) / seconds }
      rates.topics.set(name, rate)
      records += rate.records
      bytes += rate.bytes
    }
    rates.records.add(at, records)
    rates.bytes.add(at, bytes)
  }
  before = { at, sums: now }
}

/** Lists that a node has nothing in come as null. */
function whole(s: Status): Status {
  if (typeof s?.confirmed !== 'boolean') throw new KafkaError(2, 'this is no status')
  s.nodes ??= []
  s.topics ??= []
  for (const t of s.topics) {
    t.partitions ??= []
    for (const p of t.partitions) p.replicas ??= []
  }
  return s
}

export const status = new Poll<Status>(async signal => whole(await guard(askStatus<Status>(signal, 6_000))), 2_000, note)

export type TopicMeta = Of<typeof Metadata.response>['topics'][number]
/** Topics as every Kafka client sees them, with what may be done with them. */
export const topics = new Poll<TopicMeta[]>(
  async signal => {
    const { topics } = await guard(client.metadata(undefined, { signal, authorizedOperations: true, timeoutMs: 10_000 }))
    return topics.filter(t => t.topic !== null && !t.errorCode)
  },
  10_000,
)

/** What may be done with the cluster; undefined: not known. */
export const clusterOps = new Value<number | undefined>(undefined)
export async function askClusterOps(): Promise<void> {
  // Who may not describe the cluster is told no operations. He may not alter it either, which implies that. Whether he
  // may create topics is for the cluster to judge.
  clusterOps.set((await askOperations()) || 1 << ops.create)
}

export interface Trouble {
  level: 'bad' | 'warn' | 'note'
  text: string
  more?: string
}

/** What an operator should know first, the worst in front. */
export function troubles(s: Status): Trouble[] {
  const list: Trouble[] = []
  if (!s.confirmed) list.push({ level: 'bad', text: 'Not confirmed by a majority', more: s.unconfirmed })
  for (const n of s.nodes) {
    if (!n.alive) list.push({ level: 'bad', text: `Node ${n.id} does not answer` })
    if (n.disk_full) list.push({ level: 'bad', text: `The disk of node ${n.id} is full`, more: 'It takes no records until there is room.' })
    else if (n.disk_total && n.disk_free / n.disk_total < 0.1) {
      list.push({ level: 'warn', text: `Node ${n.id} has ${Math.round((n.disk_free / n.disk_total) * 100)} % of its disk left` })
    }
    if (n.state) list.push({ level: 'note', text: `Node ${n.id} is ${n.state}`, more: `${plural(n.replicas, 'replica')} and ${plural(n.leaders, 'leader')} are still there.` })
  }
  let leaderless = 0
  const roles: Record<string, number> = {}
  for (const t of s.topics) {
    for (const p of t.partitions) {
      if (!p.leader) leaderless++
      for (const r of p.replicas) roles[r.role] = (roles[r.role] ?? 0) + 1
    }
  }
  if (leaderless) list.push({ level: 'bad', text: `${plural(leaderless, 'partition')} without a leader` })
  if (roles.damaged) list.push({ level: 'bad', text: `${plural(roles.damaged, 'replica is', 'replicas are')} damaged`, more: 'They are rebuilt from the others.' })
  if (roles.offline) list.push({ level: 'warn', text: `${plural(roles.offline, 'replica is', 'replicas are')} offline` })
  if (roles.copying) list.push({ level: 'note', text: `${plural(roles.copying, 'replica copies', 'replicas copy')} what ${roles.copying === 1 ? 'it lacks' : 'they lack'}` })
  const worth = { bad: 0, warn: 1, note: 2 }
  return list.sort((a, b) => worth[a.level] - worth[b.level])
}

const words = ['No', 'One', 'Two', 'Three', 'Four', 'Five', 'Six', 'Seven', 'Eight', 'Nine']
export const inWords = (n: number): string => words[n] ?? count(n)

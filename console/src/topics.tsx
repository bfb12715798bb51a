// All topics: search, sort, create.
import { useMemo } from 'preact/hooks'
import { clusterOps, rates, status, sums, topics, type TopicMeta } from './cluster.js'
import { bytes, plural, short, shown } from './format.js'
import { later } from './later.js'
import { may } from './link.js'
import { go, link, use, usePoll, type Place } from './state.js'
import { Rows, sortBy, type Column } from './rows.js'
import { Badge, Button, Empty, Failure, Search, Waiting } from './ui.js'

const Create = later(async () => (await import('./create.js')).Create)

const columns: Column<TopicMeta>[] = [
  {
    title: 'Name', class: 'name', sort: t => t.topic!,
    cell: t => (
      <>
        <a href={link(['topics', t.topic!])}>{shown(t.topic!)}</a>
        {t.isInternal && <Badge>internal</Badge>}
        {(sums.get(t.topic!)?.unhealthy ?? 0) > 0 && <Badge level="warn">{sums.get(t.topic!)!.unhealthy} not healthy</Badge>}
      </>
    ),
  },
  { title: 'Partitions', class: 'number narrow', sort: t => t.partitions.length, down: true, cell: t => short(t.partitions.length) },
  { title: 'Records', class: 'number', sort: t => sums.get(t.topic!)?.messages ?? -1, down: true, cell: t => known(sums.get(t.topic!)?.messages, short) },
  { title: 'Size', class: 'number wide', sort: t => sums.get(t.topic!)?.bytes ?? -1, down: true, cell: t => known(sums.get(t.topic!)?.bytes, bytes) },
  { title: 'Records/s', class: 'number', sort: t => rates.topics.get(t.topic!)?.records ?? -1, down: true, cell: t => known(rates.topics.get(t.topic!)?.records, short) },
]
const known = (n: number | undefined, format: (n: number) => string): string => (n === undefined ? '–' : format(n))

export function Topics({ place }: { place: Place }) {
  const all = usePoll(topics)
  const s = usePoll(status)
  const bits = use(clusterOps)
  const q = place.query.get('q') ?? ''
  const by = place.query.get('sort') ?? 'Name'
  const down = place.query.get('down') === '1'
  const set = (query: Record<string, string | undefined>): void => {
    go(['topics'], { q, sort: place.query.get('sort') ?? undefined, down: down ? '1' : undefined, ...query }, true)
  }
  const rows = useMemo(() => {
    const words = q.toLowerCase().split(/\s+/).filter(Boolean)
    const found = (all.data ?? []).filter(t => words.every(w => t.topic!.toLowerCase().includes(w)))
    return sortBy(found.sort((a, b) => (a.topic! < b.topic! ? -1 : 1)), columns, by, down)
  }, [all.data, q, by, down, s.at])
  const creating = place.query.get('create') === '1'
  const mayCreate = may(bits, 'create')
  return (
    <>
      <div class="title">
        <h1>Topics</h1>
        {all.data && <span class="quiet">{q ? `${rows.length} of ${all.data.length}` : plural(all.data.length, 'topic')}</span>}
        <div class="actions">
          <Search value={q} label="Search topics" onInput={v => set({ q: v })} />
          {mayCreate && (
            <Button icon="plus" look="main" onClick={() => set({ create: '1' })}>
              Create topic
            </Button>
          )}
        </div>
      </div>
      {all.error && <Failure error={all.error} again={topics.refresh} />}
      {all.data === undefined ? (
        !all.error && <Waiting />
      ) : rows.length ? (
        <Rows
          label="Topics" class="tall topics" rows={rows} columns={columns} keyOf={t => t.topic!} sorted={{ by, down }}
          onSort={(sort, d) => set({ sort, down: d ? '1' : undefined })} onOpen={t => go(['topics', t.topic!])}
        />
      ) : q ? (
        <Empty title="No topic has that in its name">
          <button type="button" class="text" onClick={() => set({ q: undefined })}>
            Show all {all.data.length}
          </button>
        </Empty>
      ) : (
        <Empty title="No topics yet">{mayCreate ? 'Create one, or let a Kafka client do it: its records appear here as they come.' : 'There is none that you may see.'}</Empty>
      )}
      {creating && mayCreate && <Create onClose={() => set({ create: undefined })} />}
    </>
  )
}

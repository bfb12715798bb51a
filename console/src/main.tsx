// The page: its frame, where one is in it, and what is loaded for that.
import { render } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import { askClusterOps, status, troubles } from './cluster.js'
import { shown } from './format.js'
import { begin, drills, findGateways, hostOf, knock, linked, logout } from './link.js'
import { later, style } from './later.js'
import { Overview } from './overview.js'
import { go, link, place, use, usePoll, type Place } from './state.js'
import { Bounded, Button, Empty, Toast, Waiting } from './ui.js'

export interface PageProps {
  place: Place
}

const Topics = later(async () => (await import('./topics.js')).Topics)
const Topic = later(async () => {
  const { Topic, sheet } = await import('./topic.js')
  await style(sheet)
  return Topic
})
const Groups = later(async () => (await import('./groups.js')).Groups)
const Access = later(async () => (await import('./access.js')).Access)
const Nodes = later(async () => (await import('./nodes.js')).Nodes)
const Drill = later(async () => {
  const { Drill, sheet } = await import('./drill.js')
  await style(sheet)
  return Drill
})
const Login = later(async () => (await import('./login.js')).Login)

const pages = [
  { id: '', name: 'Overview' },
  { id: 'topics', name: 'Topics' },
  { id: 'groups', name: 'Groups' },
  { id: 'nodes', name: 'Nodes' },
  { id: 'access', name: 'Access' },
]
if (drills) pages.push({ id: 'drill', name: 'Drill' })

function Page({ place }: PageProps) {
  const [first = '', name] = place.path
  switch (first) {
    case '':
      return <Overview />
    case 'topics':
      return name === undefined ? <Topics place={place} /> : <Topic place={place} key={name} />
    case 'groups':
      return <Groups place={place} key={name} />
    case 'nodes':
      return <Nodes place={place} />
    case 'access':
      return <Access place={place} />
    case 'drill':
      if (drills) return <Drill />
  }
  return (
    <Empty title="There is no such page">
      <a href={link([])}>To the overview</a>
    </Empty>
  )
}

type Theme = 'light' | 'dark'
const wanted = matchMedia('(prefers-color-scheme: dark)')
function useTheme(): [Theme, () => void] {
  const read = (): Theme => {
    const kept = localStorage.getItem('theme')
    return kept === 'light' || kept === 'dark' ? kept : wanted.matches ? 'dark' : 'light'
  }
  const [theme, set] = useState(read)
  useEffect(() => {
    document.documentElement.dataset.theme = theme
  }, [theme])
  useEffect(() => {
    const follow = (): void => set(read())
    wanted.addEventListener('change', follow)
    return () => wanted.removeEventListener('change', follow)
  }, [])
  return [
    theme,
    () => {
      const next = theme === 'dark' ? 'light' : 'dark'
      localStorage.setItem('theme', next)
      set(next)
    },
  ]
}

/** Which node answers, or for how long none has. */
function Connection() {
  const l = use(linked)
  const [, turn] = useState(0)
  useEffect(() => {
    if (!l.lostAt) return
    const timer = setInterval(() => turn(n => n + 1), 500)
    return () => clearInterval(timer)
  }, [l.lostAt])
  const s = status.get().data
  // Strangers are parted from, which is no fault.
  if (l.locked) {
    return (
      <span class="connection">
        <span class="where">not logged in</span>
      </span>
    )
  }
  if (!l.lostAt) {
    const host = hostOf(l.gateway)
    const node = s?.nodes.find(n => n.client_address === host)?.id
    return (
      <span class="connection good" title={`Connected to ${host}`}>
        <span class="dot" />
        <span class="where">{node ?? host}</span>
      </span>
    )
  }
  const silent = Date.now() - l.lostAt
  return (
    <span class={`connection ${silent > 1500 ? 'bad' : ''}`} role="status">
      <span class="dot" />
      <span class="where">{silent > 1500 ? `no node for ${Math.round(silent / 1000)} s` : 'connecting'}</span>
    </span>
  )
}

function Shell() {
  const at = use(place)
  const l = use(linked)
  const s = usePoll(status)
  const [theme, toggle] = useTheme()
  const first = at.path[0] ?? ''
  const bad = s.data ? troubles(s.data).filter(t => t.level === 'bad').length : 0
  useEffect(() => {
    if (l.open) void askClusterOps().catch(() => {})
  }, [l.open, l.user])
  useEffect(() => {
    const title = at.path.length ? shown(at.path[1] ?? pages.find(p => p.id === first)?.name ?? '') + ' · ' : ''
    document.title = (bad ? `(${bad}) ` : '') + title + 'Trimaran'
  }, [at, bad])
  useEffect(() => scrollTo(0, 0), [at.path.join('/')])
  return (
    <>
      <a class="skip" href="#main" onClick={e => (e.preventDefault(), document.getElementById('main')?.focus())}>
        To the content
      </a>
      <header class="top">
        <a class="logo" href={link([])} aria-label="Trimaran, overview">
          <svg viewBox="0 0 34 24" aria-hidden="true">
            <path class="hull" d="M5 1h14q6 0 10 2.500Q25 6 19 6H5zM2 9.500h17q8 0 13 2.500-5 2.500-13 2.500H2zM5 18h14q6 0 10 2.500-4 2.500-10 2.500H5z" />
            <path class="beam" d="M9.500 3.500v17M17 3.500v17" />
          </svg>
          <span>Trimaran</span>
        </a>
        <nav aria-label="Pages">
          {pages.map(p => (
            <a href={link(p.id ? [p.id] : [])} aria-current={p.id === first ? 'page' : undefined}>
              {p.name}
              {p.id === '' && bad > 0 && <span class="count" aria-label={`${bad} problems`}>{bad}</span>}
            </a>
          ))}
        </nav>
        <div class="end">
          <Connection />
          {l.user !== undefined ? (
            <Button look="plain" onClick={logout} title={`Logged in: ${shown(l.user)}`}>
              Log out
            </Button>
          ) : null}
          <Button look="plain" icon={theme === 'dark' ? 'sun' : 'moon'} aria-label={`To the ${theme === 'dark' ? 'light' : 'dark'} theme`} onClick={toggle} />
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        {l.locked || first === 'login' ? <Login place={at} /> : l.open || first === '' || first === 'drill' ? <Bounded key={at.path.join('/')}><Page place={at} /></Bounded> : <Waiting />}
      </main>
      <Toast />
    </>
  )
}

addEventListener('keydown', e => {
  const typing = (e.target as HTMLElement).closest?.('input,textarea,select,dialog')
  if (e.key !== '/' || e.ctrlKey || e.metaKey || e.altKey || typing) return
  const field = document.querySelector<HTMLElement>('main input[type=search]')
  if (!field) return
  e.preventDefault()
  field.focus()
})

const root = document.getElementById('page')!
void begin().then(() => {
  // Who drills comes for that.
  if (drills && !location.hash) go(['drill'], {}, true)
  root.replaceChildren()
  render(<Shell />, root)
  void knock()
})
// A page that is loaded later comes from this node as well, which may be gone by then.
addEventListener('load', () => {
  void findGateways().catch(() => {})
  for (const load of [() => import('./topics.js'), async () => style((await import('./topic.js')).sheet), () => import('./groups.js'), () => import('./nodes.js'), () => import('./access.js'), () => import('./create.js')]) {
    void load().catch(() => {})
  }
})

// The parts that pages are made of.
import type { ComponentChildren, JSX } from 'preact'
import { useErrorBoundary } from 'preact/hooks'
import type { KafkaError } from 'trimaran'
import { shown } from './format.js'
import { Value, use, type Polled } from './state.js'

const icons: Record<string, string> = {
  search: 'M7 12a5 5 0 1 0 0-10 5 5 0 0 0 0 10zM11 11l4 4',
  plus: 'M8 2v12M2 8h12',
  trash: 'M3 4h10M6 4V2h4v2M4 4l1 10h6l1-10',
  send: 'M2 8l12-6-4 12-3-5z',
  play: 'M4 2l9 6-9 6z',
  pause: 'M5 3v10M11 3v10',
  down: 'M8 2v9M4 8l4 4 4-4M3 15h10',
  close: 'M3 3l10 10M13 3L3 13',
  back: 'M10 3L5 8l5 5',
  sun: 'M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 1v1M8 14v1M1 8h1M14 8h1M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1',
  moon: 'M13 10A6 6 0 0 1 6 3a5.500 5.500 0 1 0 7 7z',
  redo: 'M13 8a5 5 0 1 1-1.500-3.500L13 6M13 2v4H9',
  edit: 'M3 13l1-3 7-7 2 2-7 7z',
}
export const Icon = ({ name }: { name: string }) => (
  <svg class="icon" viewBox="0 0 16 16" aria-hidden="true">
    <path d={icons[name]} />
  </svg>
)

type ButtonProps = Omit<JSX.IntrinsicElements['button'], 'icon'> & {
  icon?: string
  look?: 'main' | 'danger' | 'plain'
  busy?: boolean
}
export const Button = ({ icon, look, busy, children, disabled, ...rest }: ButtonProps) => (
  <button type="button" {...rest} class={`button ${look ?? ''} ${children ? '' : 'bare'}`} disabled={disabled || busy} aria-busy={busy}>
    {icon && <Icon name={icon} />}
    {children}
  </button>
)

/** What went wrong, in Kafka's words and the cluster's. */
export const Failure = ({ error, again }: { error: Error; again?: () => void }) => (
  <div class="failure" role="alert">
    <div>
      <strong>{explain(error)}</strong>
      <small>
        {error.name}
        {error.message !== error.name && ': ' + shown(error.message)}
      </small>
    </div>
    {again && <Button onClick={again}>Try again</Button>}
  </div>
)
function explain(e: Error): string {
  const code = (e as KafkaError).code
  if (code === 13) return 'No node can be reached'
  if (code === 7) return 'The cluster did not answer in time'
  if (code === 29 || code === 30 || code === 31) return 'You have no right to see or do this'
  if (code === 34 || code === 58) return 'The cluster wants to know who you are'
  return 'This did not work'
}

/** A hull seen from above, in a box of 100 by 100. */
export const hull = 'M3 3 H66 C82 3 93 24 99.500 50 C93 76 82 97 66 97 H3 C1 97 .5 90 .5 82 V18 C.5 10 1 3 3 3 Z'

export const Empty = ({ title, children }: { title: string; children?: ComponentChildren }) => (
  <div class="empty">
    <svg viewBox="0 0 120 44" aria-hidden="true">
      <path class="hull" d="M22 8h40q14 0 24 4-10 4-24 4H22zM12 20h56q18 0 32 5-14 5-32 5H12zM22 34h40q14 0 24 4-10 4-24 4H22z" />
      <path class="beam" d="M36 10v29M56 10v29" />
    </svg>
    <h3>{title}</h3>
    {children && <p>{children}</p>}
  </div>
)

/** What cannot be shown takes nothing else along. */
export function Bounded({ children }: { children: ComponentChildren }) {
  const [error, again] = useErrorBoundary()
  return error ? <Failure error={error as Error} again={again} /> : <>{children}</>
}

export function Panel(p: {
  title: ComponentChildren
  actions?: ComponentChildren
  class?: string
  /** what it is fed by: while that fails the panel says so, and keeps what it had */
  of?: Polled<unknown>
  again?: () => void
  children: ComponentChildren
}) {
  const { of } = p
  return (
    <section class={`panel ${p.class ?? ''}`}>
      <header>
        <h2>{p.title}</h2>
        {of?.error && of.data !== undefined && (
          <span class="badge warn" title={shown(of.error.message)}>
            as of {new Date(of.at).toLocaleTimeString()}
          </span>
        )}
        <div class="actions">{p.actions}</div>
      </header>
      {of && of.data === undefined ? of.error ? <Failure error={of.error} again={p.again} /> : <Waiting /> : <Bounded>{p.children}</Bounded>}
    </section>
  )
}

/** Says that it waits, but not before it is noticed that it does. */
export const Waiting = () => (
  <div class="waiting" role="status">
    <span>Asking the cluster …</span>
  </div>
)

export const Badge = ({ level, children }: { level?: string; children: ComponentChildren }) => (
  <span class={`badge ${level ?? ''}`}>{children}</span>
)

export const toast = new Value<{ text: string; bad?: boolean; n: number } | undefined>(undefined)
let said = 0
export function say(text: string, bad = false): void {
  const n = ++said
  toast.set({ text, bad, n })
  setTimeout(() => toast.get()?.n === n && toast.set(undefined), 5_000)
}
export const Toast = () => {
  const t = use(toast)
  return (
    <div class="toast" role="status" aria-live="polite">
      {t && <div class={t.bad ? 'bad' : ''}>{shown(t.text)}</div>}
    </div>
  )
}

export function Search(p: { value: string; onInput: (s: string) => void; label: string; wrong?: boolean }) {
  return (
    <div class={`search ${p.wrong ? 'wrong' : ''}`}>
      <Icon name="search" />
      <input type="search" placeholder={p.label} aria-label={p.label} aria-invalid={p.wrong} value={p.value} onInput={e => p.onInput(e.currentTarget.value)} spellcheck={false} />
    </div>
  )
}

export const Tabs = ({ of, current, label }: { of: { name: string; href: string; id: string }[]; current: string; label: string }) => (
  <nav class="tabs" aria-label={label}>
    {of.map(t => (
      <a href={t.href} aria-current={t.id === current ? 'page' : undefined}>
        {t.name}
      </a>
    ))}
  </nav>
)

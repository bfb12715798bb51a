// State outside of components: values that are listened to, what is asked again and again, and the
// place in the page, which is in the address.
import { useEffect, useState } from 'preact/hooks'

/** A value that components follow. */
export class Value<T> {
  private listeners = new Set<() => void>()
  constructor(private current: T) {}
  get(): T {
    return this.current
  }
  set(next: T): void {
    if (next === this.current) return
    this.current = next
    this.tell()
  }
  protected tell(): void {
    for (const f of [...this.listeners]) f()
  }
  listen(f: () => void): () => void {
    this.listeners.add(f)
    return () => this.listeners.delete(f)
  }
}

export function use<T>(v: Value<T>): T {
  const [, turn] = useState(0)
  useEffect(() => v.listen(() => turn(n => n + 1)), [v])
  return v.get()
}

export interface Polled<T> {
  data?: T
  /** why the last attempt failed; the data is older then */
  error?: Error
  /** when the data came, in ms since 1970 */
  at: number
}

/** Nothing is asked meanwhile: nobody is logged in who would get an answer. */
export const paused = new Value(false)

/**
 * Asks while somebody looks and the page is visible: every so often, and less often when answers
 * take long. What it knows stays when an attempt fails.
 */
export class Poll<T> extends Value<Polled<T>> {
  private users = 0
  private timer?: ReturnType<typeof setTimeout>
  private running?: AbortController
  constructor(
    private ask: (signal: AbortSignal) => Promise<T>,
    private everyMs: number,
    private onData?: (data: T, at: number) => void,
  ) {
    super({ at: 0 })
  }

  hold(): () => void {
    if (this.users++ === 0) {
      document.addEventListener('visibilitychange', this.seen)
      void this.refresh()
    }
    return () => {
      if (--this.users) return
      document.removeEventListener('visibilitychange', this.seen)
      clearTimeout(this.timer)
      this.running?.abort()
      this.running = undefined
    }
  }

  private seen = (): void => {
    if (!document.hidden) void this.refresh()
  }

  /** Asks now. What is being asked already is forgotten, since it may be from before a change. */
  refresh = async (): Promise<void> => {
    clearTimeout(this.timer)
    this.running?.abort()
    if (paused.get()) return
    const mine = (this.running = new AbortController())
    const began = Date.now()
    let failed = false
    try {
      const data = await this.ask(mine.signal)
      if (mine.signal.aborted) return
      this.onData?.(data, Date.now())
      this.set({ data, at: Date.now() })
    } catch (error) {
      if (mine.signal.aborted) return
      failed = true
      this.set({ ...this.get(), error: error as Error })
    }
    this.running = undefined
    const took = Date.now() - began
    if (this.users > 0 && !document.hidden) {
      this.timer = setTimeout(this.refresh, failed ? 1500 : Math.max(this.everyMs, took * 6))
    }
  }

  forget(): void {
    this.set({ at: 0 })
    if (this.users) void this.refresh()
  }
}

export function usePoll<T>(p: Poll<T>): Polled<T> {
  useEffect(() => p.hold(), [p])
  return use(p)
}

export interface Place {
  /** the parts of the path, decoded */
  path: string[]
  query: URLSearchParams
}

const decodePart = (s: string): string => {
  try {
    return decodeURIComponent(s)
  } catch {
    return s
  }
}
const readPlace = (): Place => {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?')
  return { path: path.split('/').filter(Boolean).map(decodePart), query: new URLSearchParams(query) }
}

export const place = new Value<Place>(readPlace())
addEventListener('hashchange', () => place.set(readPlace()))

export function link(path: string[], query: Record<string, string | undefined> = {}): string {
  const q = new URLSearchParams()
  for (const [k, v] of Object.entries(query)) if (v) q.set(k, v)
  const tail = q.toString()
  return '#/' + path.map(encodeURIComponent).join('/') + (tail ? '?' + tail : '')
}

export function go(path: string[], query?: Record<string, string | undefined>, replace = false): void {
  const to = link(path, query)
  if (to === location.hash) return
  if (replace) {
    history.replaceState(null, '', to)
    place.set(readPlace())
  } else {
    location.hash = to
  }
}

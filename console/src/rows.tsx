// Long lists.
import type { ComponentChildren } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'

export interface Column<T> {
  title: string
  /** a CSS class of the column, which gives its width */
  class: string
  cell: (row: T) => ComponentChildren
  sort?: (row: T) => number | string | bigint
  /** largest first when it is sorted by for the first time */
  down?: boolean
}

/** Rows of one height, of which only those are in the document that can be seen. */
export function Rows<T>(p: {
  label: string
  rows: T[]
  columns: Column<T>[]
  keyOf: (row: T) => string | number
  sorted?: { by: string; down: boolean }
  onSort?: (by: string, down: boolean) => void
  onOpen?: (row: T) => void
  current?: T
  onTop?: (top: boolean) => void
  class?: string
}) {
  const box = useRef<HTMLDivElement>(null)
  const [from, setFrom] = useState(0)
  const [seen, setSeen] = useState(40)
  const height = 40
  useEffect(() => {
    const b = box.current!
    const look = (): void => setSeen(Math.ceil(b.clientHeight / height) + 2)
    const observer = new ResizeObserver(look)
    observer.observe(b)
    return () => observer.disconnect()
  }, [])
  const first = Math.max(0, Math.min(from, p.rows.length - seen))
  const visible = p.rows.slice(first, first + seen)
  const onScroll = (): void => {
    const { scrollTop } = box.current!
    setFrom(Math.floor(scrollTop / height))
    p.onTop?.(scrollTop < 4)
  }
  const onKeyDown = (e: KeyboardEvent): void => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: seen - 3, PageUp: 3 - seen }[e.key]
    const at = (document.activeElement as HTMLElement)?.closest<HTMLElement>('[data-at]')
    if (!step || !at) return
    e.preventDefault()
    const to = Math.max(0, Math.min(p.rows.length - 1, Number(at.dataset.at) + step))
    const b = box.current!
    // The head of the table covers what is below it.
    if (to * height < b.scrollTop) b.scrollTop = to * height
    else if ((to + 2) * height > b.scrollTop + b.clientHeight) b.scrollTop = (to + 2) * height - b.clientHeight
    setFrom(Math.floor(b.scrollTop / height))
    requestAnimationFrame(() => (b.querySelector(`[data-at="${to}"] a, [data-at="${to}"] .open`) as HTMLElement | null)?.focus())
  }
  return (
    <div class={`rows ${p.class ?? ''}`} ref={box} onScroll={onScroll} onKeyDown={onKeyDown} role="table" aria-label={p.label} aria-rowcount={p.rows.length + 1} tabIndex={-1}>
      <div class="row head" role="row" aria-rowindex={1}>
        {p.columns.map(c => {
          const on = p.sorted?.by === c.title
          return (
            <div class={c.class} role="columnheader" aria-sort={on ? (p.sorted!.down ? 'descending' : 'ascending') : undefined}>
              {c.sort && p.onSort ? (
                <button type="button" onClick={() => p.onSort!(c.title, on ? !p.sorted!.down : !!c.down)}>
                  {c.title}
                  <span aria-hidden="true">{on ? (p.sorted!.down ? ' ↓' : ' ↑') : ''}</span>
                </button>
              ) : (
                c.title
              )}
            </div>
          )
        })}
      </div>
      <div class="body" role="rowgroup" ref={(e: HTMLElement | null) => void (e && (e.style.height = `${p.rows.length * height}px`))}>
        {visible.map((row, i) => (
          <div
            class={`row ${p.onOpen ? 'opens' : ''} ${row === p.current ? 'current' : ''}`} role="row" key={p.keyOf(row)} data-at={first + i} aria-rowindex={first + i + 2}
            ref={(e: HTMLElement | null) => void (e && (e.style.transform = `translateY(${(first + i) * height}px)`))}
            onClick={p.onOpen && (() => p.onOpen!(row))}
          >
            {p.columns.map(c => (
              <div class={c.class} role="cell">
                {c.cell(row)}
              </div>
            ))}
          </div>
        ))}
      </div>
    </div>
  )
}

/** Sorts by a column; what is equal stays in the order of names. */
export function sortBy<T>(rows: T[], columns: Column<T>[], by: string, down: boolean): T[] {
  const key = columns.find(c => c.title === by)?.sort
  if (!key) return rows
  const keyed = rows.map(row => ({ row, key: key(row) }))
  keyed.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0) * (down ? -1 : 1))
  return keyed.map(k => k.row)
}

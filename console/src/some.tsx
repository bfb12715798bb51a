// Lists that may be of any length, where all of it at once would be no page that answers.
import type { ComponentChildren } from 'preact'
import { useState } from 'preact/hooks'
import { count } from './format.js'

const step = 500

/** The first rows of a table, and one that brings more. */
export function useSome<T>(list: T[], columns: number): [some: T[], more: ComponentChildren] {
  const [most, setMost] = useState(step)
  const rest = list.length - most
  return [
    rest > 0 ? list.slice(0, most) : list,
    rest > 0 && (
      <tr>
        <td colSpan={columns}>
          <button type="button" class="text" onClick={() => setMost(most + step)}>
            {count(Math.min(rest, step))} more of {count(rest)}
          </button>
        </td>
      </tr>
    ),
  ]
}

/** Which partition: out of a list, or as a number where there are many. */
export function Partition(p: { all: number[]; value: string; none: string; set: (n: string) => void }) {
  if (p.all.length > 200) {
    return (
      <input
        class="partition" type="number" min={0} max={p.all.length - 1} aria-label={`Partition; empty: ${p.none}`} placeholder={p.none} value={p.value}
        onChange={e => p.set(p.all.includes(Number(e.currentTarget.value)) ? e.currentTarget.value : '')}
      />
    )
  }
  return (
    <select aria-label="Partition" value={p.value} onChange={e => p.set(e.currentTarget.value)}>
      <option value="">{p.none}</option>
      {p.all.map(n => (
        <option value={n}>partition {n}</option>
      ))}
    </select>
  )
}

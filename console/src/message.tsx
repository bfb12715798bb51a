// One message, all of it: JSON folded, text, or bytes.
import { useEffect, useRef, useState } from 'preact/hooks'
import { Exact, bytes, count, cut, dump, parseJson, preview, shown, text, time } from './format.js'
import type { Message } from './read.js'
import { Badge, Button, say } from './ui.js'

const most = 64 << 10

/** A value of JSON; what is deep or long is folded. */
function Json({ value, name, depth }: { value: unknown; name?: string; depth: number }) {
  const [all, setAll] = useState(false)
  const label = name !== undefined && <span class="name">{shown(name)}: </span>
  if (value instanceof Exact) {
    return (
      <div class="leaf">
        {label}
        <span class="number">{value.source}</span>
      </div>
    )
  }
  if (value === null || typeof value !== 'object') {
    const kind = value === null ? 'null' : typeof value
    return (
      <div class="leaf">
        {label}
        <span class={kind}>{kind === 'string' ? JSON.stringify(shown(value as string)) : String(value)}</span>
      </div>
    )
  }
  const list = Array.isArray(value)
  const entries = list ? value.map((v, i) => [String(i), v] as const) : Object.entries(value)
  const some = all ? entries : entries.slice(0, 100)
  return (
    <details open={depth < 2 && entries.length <= 50}>
      <summary>
        {label}
        <span class="quiet">{list ? `[ ${entries.length} ]` : `{ ${entries.length} }`}</span>
      </summary>
      {depth < 60 ? some.map(([k, v]) => <Json key={k} name={k} value={v} depth={depth + 1} />) : <div class="leaf">…</div>}
      {some.length < entries.length && (
        <button type="button" class="text" onClick={() => setAll(true)}>
          {entries.length - some.length} more
        </button>
      )}
    </details>
  )
}

function Content({ label, data }: { label: string; data: Uint8Array | null }) {
  const part = data && cut(data, most)
  const s = part ? text(part) : undefined
  const json = s !== undefined && data === part ? parseJson(s) : undefined
  const ways = [...(json ? ['JSON'] : []), ...(s !== undefined ? ['Text'] : []), 'Hex']
  const [way, setWay] = useState('')
  const now = ways.includes(way) ? way : ways[0]
  return (
    <section class="content">
      <header>
        <h3>{label}</h3>
        {data && <span class="quiet">{bytes(data.length)}</span>}
        {data && data.length > 0 && (
          <div class="segments small" role="group" aria-label={`Show the ${label.toLowerCase()} as`}>
            {ways.map(w => (
              <button type="button" aria-pressed={w === now} onClick={() => setWay(w)}>
                {w}
              </button>
            ))}
          </div>
        )}
        {s !== undefined && s !== '' && (
          <Button look="plain" onClick={() => void navigator.clipboard?.writeText(s).then(() => say('Copied'), () => say('The browser does not let pages copy here', true))}>
            Copy
          </Button>
        )}
      </header>
      {data === null ? (
        <Badge>{label === 'Value' ? 'tombstone' : 'none'}</Badge>
      ) : data.length === 0 ? (
        <Badge>empty</Badge>
      ) : now === 'JSON' ? (
        <div class="json">
          <Json value={json!.json} depth={0} />
        </div>
      ) : (
        <pre class={now === 'Hex' ? 'hex' : ''}>{now === 'Text' ? shown(s!, true) : dump(part!.subarray(0, 8 << 10))}</pre>
      )}
      {data !== part && <p class="quiet">The first {bytes(most)} are shown.</p>}
    </section>
  )
}

export function Detail(p: { message: Message; onClose: () => void; onResend?: () => void }) {
  const m = p.message
  const ref = useRef<HTMLElement>(null)
  useEffect(() => {
    const onKey = (e: KeyboardEvent): void => {
      if (e.key === 'Escape' && !document.querySelector('dialog[open]')) p.onClose()
    }
    addEventListener('keydown', onKey)
    return () => removeEventListener('keydown', onKey)
  }, [])
  useEffect(() => {
    if (innerWidth < 1000) ref.current?.scrollIntoView({ block: 'nearest' })
  }, [m])
  return (
    <aside class="detail" ref={ref} aria-label="Message">
      <header>
        <h2>
          Partition {m.partition}, offset {count(m.offset)}
        </h2>
        {p.onResend && (
          <Button icon="redo" onClick={p.onResend}>
            Send a copy
          </Button>
        )}
        <Button icon="close" look="plain" aria-label="Close the message" onClick={p.onClose} />
      </header>
      <p class="quiet">{time(m.timestamp)}</p>
      <Content key={m.id + 'v'} label="Value" data={m.value} />
      <Content key={m.id + 'k'} label="Key" data={m.key} />
      <section class="content">
        <header>
          <h3>Headers</h3>
          <span class="quiet">{m.headers.length || 'none'}</span>
        </header>
        {m.headers.length > 0 && (
          <dl>
            {m.headers.slice(0, 200).map(h => (
              <>
                <dt>{shown(h.key)}</dt>
                <dd>{h.value ? preview(h.value, 1000) : <Badge>null</Badge>}</dd>
              </>
            ))}
          </dl>
        )}
      </section>
    </aside>
  )
}

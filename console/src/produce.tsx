// Writing a message, or a copy of one.
import { useEffect, useState } from 'preact/hooks'
import type { Producer } from 'trimaran'
import { hexOf, text, unhex } from './format.js'
import { client } from './link.js'
import type { Message } from './read.js'
import { Dialog, Field, Form } from './form.js'
import { Partition } from './some.js'
import { say } from './ui.js'

type Shape = 'text' | 'hex'
interface Part {
  shape: Shape
  content: string
}
export interface Draft {
  key?: Part
  value?: Part
  tombstone?: boolean
  headers?: { key: string; value: Part; none?: boolean }[]
  partition?: number
}

const partOf = (b: Uint8Array): Part => {
  const s = text(b)
  return s === undefined ? { shape: 'hex', content: hexOf(b) } : { shape: 'text', content: s }
}

/** A copy of a message, to be changed and sent. */
export const fromMessage = (m: Message): Draft => ({
  key: m.key ? partOf(m.key) : undefined,
  value: m.value ? partOf(m.value) : undefined,
  tombstone: m.value === null,
  headers: m.headers.map(h => ({ key: h.key, value: h.value ? partOf(h.value) : { shape: 'text', content: '' }, none: h.value === null })),
  partition: m.partition,
})

const bytesOf = (p: Part): Uint8Array | undefined => (p.shape === 'hex' ? unhex(p.content) : new TextEncoder().encode(p.content))

const producers = new WeakMap<typeof client, Producer>()
function producer(): Producer {
  let p = producers.get(client)
  if (!p) producers.set(client, (p = client.producer({ deliveryTimeoutMs: 15_000 })))
  return p
}

function PartField(p: { label: string; part: Part; rows: number; set: (part: Part) => void; disabled?: boolean }) {
  const { part } = p
  const bad = bytesOf(part) === undefined
  return (
    <Field label={p.label} error={bad ? 'Pairs of hexadecimal digits' : undefined}>
      {id => (
        <div class="part">
          <textarea id={id} rows={p.rows} spellcheck={false} disabled={p.disabled} value={part.content} onInput={e => p.set({ ...part, content: e.currentTarget.value })} />
          <select aria-label={`${p.label} is written as`} disabled={p.disabled} value={part.shape} onChange={e => p.set({ ...part, shape: e.currentTarget.value as Shape })}>
            <option value="text">text</option>
            <option value="hex">hex</option>
          </select>
        </div>
      )}
    </Field>
  )
}

export function Produce({ topic, partitions, draft, onClose }: { topic: string; partitions: number[]; draft: Draft; onClose: () => void }) {
  const [key, setKey] = useState<Part>(draft.key ?? { shape: 'text', content: '' })
  const [noKey, setNoKey] = useState(draft.key === undefined)
  const [value, setValue] = useState<Part>(draft.value ?? { shape: 'text', content: '' })
  const [tombstone, setTombstone] = useState(!!draft.tombstone)
  const [partition, setPartition] = useState(draft.partition === undefined ? '' : String(draft.partition))
  const [headers, setHeaders] = useState(draft.headers ?? [])
  // While somebody types. What goes wrong here is told by "Send".
  useEffect(() => void producer().ready(topic).catch(() => {}), [topic])
  const change = (i: number, to: Partial<NonNullable<Draft['headers']>[number]>): void => setHeaders(headers.map((h, k) => (k === i ? { ...h, ...to } : h)))
  const k = noKey ? null : bytesOf(key)
  const v = tombstone ? null : bytesOf(value)
  const heads = headers.map(h => ({ key: h.key, value: h.none ? null : bytesOf(h.value) }))
  const ready = k !== undefined && v !== undefined && heads.every(h => h.value !== undefined)
  const submit = async (): Promise<void> => {
    const [written] = await producer().send(topic, [{ key: k, value: v!, headers: heads as { key: string; value: Uint8Array | null }[], partition: partition === '' ? undefined : Number(partition) }])
    say(`Written to partition ${written.partition}${written.offset >= 0n ? `, offset ${written.offset}` : ''}`)
    onClose()
  }
  return (
    <Dialog title={draft.value || draft.tombstone ? 'Send a copy' : 'Produce a message'} onClose={onClose} wide>
      <Form submit="Send" ready={ready} onSubmit={submit} onCancel={onClose}>
        <PartField label="Value" part={value} rows={7} set={setValue} disabled={tombstone} />
        <label class="check">
          <input type="checkbox" checked={tombstone} onChange={e => setTombstone(e.currentTarget.checked)} /> Tombstone: no value at all
        </label>
        <PartField
          label="Key" part={key} rows={1}
          set={part => {
            setKey(part)
            setNoKey(part.content === '')
          }}
        />
        <label class="check">
          <input type="checkbox" checked={noKey} onChange={e => setNoKey(e.currentTarget.checked)} /> No key
        </label>
        {headers.map((h, i) => (
          <div class="header">
            <input aria-label="Header's name" placeholder="name" value={h.key} onInput={e => change(i, { key: e.currentTarget.value })} spellcheck={false} />
            <input aria-label="Header's value" placeholder={h.none ? 'null' : 'value'} value={h.value.content} onInput={e => change(i, { value: { ...h.value, content: e.currentTarget.value }, none: false })} spellcheck={false} />
            <button type="button" class="text" onClick={() => setHeaders(headers.filter((_, k) => k !== i))}>
              Remove
            </button>
          </div>
        ))}
        <div class="header">
          <button type="button" class="text" onClick={() => setHeaders([...headers, { key: '', value: { shape: 'text', content: '' } }])}>
            Add a header
          </button>
          <Partition all={partitions} value={partition} none="partition by key, or in turn" set={setPartition} />
        </div>
      </Form>
    </Dialog>
  )
}

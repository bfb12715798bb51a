// Dialogs and forms.
import type { ComponentChildren } from 'preact'
import { useEffect, useId, useRef, useState } from 'preact/hooks'
import { shown } from './format.js'
import { Button, Failure } from './ui.js'

export function Dialog(p: { title: string; onClose: () => void; children: ComponentChildren; wide?: boolean }) {
  const ref = useRef<HTMLDialogElement>(null)
  const id = useId()
  useEffect(() => {
    const d = ref.current!
    const was = document.activeElement as HTMLElement | null
    d.showModal()
    const first = d.querySelector<HTMLElement>('input:not([type=checkbox]),textarea,select')
    first?.focus()
    return () => {
      d.close()
      was?.focus?.()
    }
  }, [])
  return (
    <dialog
      ref={ref} class={p.wide ? 'wide' : ''} aria-labelledby={id}
      onCancel={e => {
        e.preventDefault()
        p.onClose()
      }}
    >
      <header>
        <h2 id={id}>{p.title}</h2>
        <Button icon="close" look="plain" aria-label="Close" onClick={p.onClose} />
      </header>
      {p.children}
    </dialog>
  )
}

export function Field(p: { label: string; hint?: ComponentChildren; error?: string; children: (id: string) => ComponentChildren }) {
  const id = useId()
  return (
    <div class="field">
      <label for={id}>{p.label}</label>
      {p.children(id)}
      {(p.error || p.hint) && <small class={p.error ? 'wrong' : ''}>{p.error ?? p.hint}</small>}
    </div>
  )
}

/**
 * A form that does one thing: its button is busy meanwhile, and what fails is said above it, where
 * what was entered still stands.
 */
export function Form(p: {
  submit: string
  danger?: boolean
  ready?: boolean
  onSubmit: () => Promise<void>
  onCancel?: () => void
  children: ComponentChildren
}) {
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<Error>()
  const onSubmit = async (e: Event): Promise<void> => {
    e.preventDefault()
    if (busy || p.ready === false) return
    setBusy(true)
    setError(undefined)
    try {
      await p.onSubmit()
    } catch (e) {
      setError(e as Error)
    }
    setBusy(false)
  }
  return (
    <form onSubmit={onSubmit} autocomplete="off">
      {p.children}
      {error && <Failure error={error} />}
      <footer>
        {p.onCancel && <Button onClick={p.onCancel}>Cancel</Button>}
        <Button type="submit" look={p.danger ? 'danger' : 'main'} busy={busy} disabled={p.ready === false}>
          {p.submit}
        </Button>
      </footer>
    </form>
  )
}

/** Asks to type a name before something is gone for good. */
export function Confirm(p: { title: string; name: string; verb: string; children: ComponentChildren; onClose: () => void; onSubmit: () => Promise<void> }) {
  const [typed, setTyped] = useState('')
  return (
    <Dialog title={p.title} onClose={p.onClose}>
      <Form submit={p.verb} danger ready={typed === p.name} onSubmit={p.onSubmit} onCancel={p.onClose}>
        <p>{p.children}</p>
        <Field label="Type the name to confirm" hint={<code>{shown(p.name)}</code>}>
          {id => <input id={id} value={typed} onInput={e => setTyped(e.currentTarget.value)} spellcheck={false} />}
        </Field>
      </Form>
    </Dialog>
  )
}

// What is not needed at first.
import type { ComponentType } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import { Failure, Waiting } from './ui.js'

/** A component that is loaded when it is shown for the first time. */
export function later<P extends object>(load: () => Promise<ComponentType<P>>): ComponentType<P> {
  let page: ComponentType<P> | undefined
  return function Later(p: P) {
    const [, turn] = useState(0)
    const [error, setError] = useState<Error>()
    const get = (): void => {
      setError(undefined)
      load().then(
        c => {
          page = c
          turn(n => n + 1)
        },
        setError,
      )
    }
    useEffect(() => {
      if (!page) get()
    }, [])
    if (page) {
      const Page = page
      return <Page {...p} />
    }
    return error ? <Failure error={error} again={get} /> : <Waiting />
  }
}

/** Adds a sheet of styles, and waits until it holds. */
export function style(name: string): Promise<void> {
  const href = new URL(name, import.meta.url).href
  if ([...document.styleSheets].some(s => s.href === href)) return Promise.resolve()
  return new Promise((done, failed) => {
    const sheet = document.createElement('link')
    sheet.rel = 'stylesheet'
    sheet.href = href
    sheet.onload = () => done()
    sheet.onerror = () => {
      sheet.remove()
      failed(new Error('a file of the page cannot be loaded: is its node gone?'))
    }
    document.head.append(sheet)
  })
}

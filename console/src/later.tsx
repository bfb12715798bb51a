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

// A plot on a canvas: one filled line over time, a crosshair, and what is under it in words.
import { useEffect, useRef } from 'preact/hooks'
import type { Series } from './cluster.js'

interface PlotProps {
  label: string
  series: Series
  /** of a value, for the axis and the crosshair */
  format: (n: number) => string
  /** the name of a custom property with the line's colour */
  color?: string
}

const nice = (n: number): number => {
  const size = 10 ** Math.floor(Math.log10(n))
  return [1, 2, 5, 10].map(f => f * size).find(x => x >= n) ?? n
}

function draw(canvas: HTMLCanvasElement, p: PlotProps, pointer: number | undefined): void {
  const { clientWidth: width, clientHeight: height } = canvas
  const ratio = devicePixelRatio || 1
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio)
    canvas.height = Math.round(height * ratio)
  }
  const style = getComputedStyle(canvas)
  const color = style.getPropertyValue(p.color ?? '--accent')
  const c = canvas.getContext('2d')!
  c.setTransform(ratio, 0, 0, ratio, 0, 0)
  c.clearRect(0, 0, width, height)
  c.font = `11px ${style.fontFamily}`
  const { times, values } = p.series
  const end = times.length ? times[times.length - 1] : Date.now()
  // A plot that has just begun is not all empty.
  const span = Math.min(300_000, Math.max(60_000, end - (times[0] ?? end)))
  const top = nice(Math.max(1, ...values) * 1.05)
  const left = 0
  const bottom = height - 16
  const x = (t: number): number => left + (1 - (end - t) / span) * (width - left - 3)
  const y = (v: number): number => bottom - (v / top) * (bottom - 16)
  c.strokeStyle = style.getPropertyValue('--line')
  c.fillStyle = style.getPropertyValue('--quiet')
  c.lineWidth = 1
  for (const v of [0, top / 2, top]) {
    const at = Math.round(y(v)) + 0.5
    c.beginPath()
    c.moveTo(left, at)
    c.lineTo(width, at)
    c.stroke()
    if (v) c.fillText(p.format(v), 2, at - 4)
  }
  c.fillText(span < 120_000 ? `${Math.round(span / 1000)} s ago` : `${+(span / 60_000).toFixed(1)} min ago`, 2, height - 3)
  c.textAlign = 'right'
  c.fillText('now', width - 2, height - 3)
  c.textAlign = 'left'
  if (!times.length) return
  const shape = new Path2D()
  times.forEach((t, i) => shape[i ? 'lineTo' : 'moveTo'](x(t), y(values[i])))
  const area = new Path2D(shape)
  area.lineTo(x(end), bottom)
  area.lineTo(x(times[0]), bottom)
  c.fillStyle = color
  c.save()
  c.globalAlpha = 0.16
  c.beginPath()
  c.rect(left, 0, width, height)
  c.clip()
  c.fill(area)
  c.globalAlpha = 1
  c.strokeStyle = color
  c.lineWidth = 1.5
  c.lineJoin = 'round'
  c.stroke(shape)
  c.restore()
  let at = times.length - 1
  if (pointer !== undefined) {
    at = times.reduce((best, t, i) => (Math.abs(x(t) - pointer) < Math.abs(x(times[best]) - pointer) ? i : best), 0)
    c.strokeStyle = style.getPropertyValue('--quiet')
    c.lineWidth = 1
    c.beginPath()
    c.moveTo(x(times[at]), 12)
    c.lineTo(x(times[at]), bottom)
    c.stroke()
    const words = `${p.format(values[at])} at ${new Date(times[at]).toLocaleTimeString()}`
    const room = c.measureText(words).width + 8
    c.fillStyle = style.getPropertyValue('--text')
    c.fillText(words, Math.min(Math.max(left, x(times[at]) - room / 2), width - room), 10)
  }
  c.fillStyle = color
  c.beginPath()
  c.arc(x(times[at]), y(values[at]), 3, 0, 7)
  c.fill()
}

export function Plot(p: PlotProps) {
  const ref = useRef<HTMLCanvasElement>(null)
  const pointer = useRef<number | undefined>(undefined)
  const now = useRef(p)
  now.current = p
  const again = (): void => {
    if (ref.current) draw(ref.current, now.current, pointer.current)
  }
  useEffect(again)
  useEffect(() => {
    const observer = new ResizeObserver(again)
    observer.observe(ref.current!)
    const theme = new MutationObserver(again)
    theme.observe(document.documentElement, { attributes: true })
    return () => {
      observer.disconnect()
      theme.disconnect()
    }
  }, [])
  const last = p.series.last
  return (
    <canvas
      ref={ref} class="plot" role="img" aria-label={`${p.label}: ${Number.isNaN(last) ? 'no figures yet' : p.format(last)}`}
      onPointerMove={e => {
        pointer.current = e.offsetX
        again()
      }}
      onPointerLeave={() => {
        pointer.current = undefined
        again()
      }}
    />
  )
}

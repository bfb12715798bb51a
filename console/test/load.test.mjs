// The live tail under load: half a minute where CONSOLE_LOAD is set, else some seconds.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { after, before, test } from 'node:test'
import { Browser, Cluster, program } from './harness.mjs'

const seconds = process.env.CONSOLE_LOAD ? 30 : 6
let cluster
let browser
before(async () => {
  cluster = await Cluster.start(1)
  browser = await Browser.start()
})
after(async () => {
  await browser?.end()
  await cluster?.end()
})

test(`10,000 messages a second for ${seconds} s: the page answers within 100 ms in 150 MB`, async () => {
  await cluster.trimaran(['topic', 'create', 'flood', '--partitions', '3', '--replication-factor', '1'])
  // Something else may have the machine at the time: the best of three counts.
  let late
  for (let i = 0; i < 3 && !(late <= 100); i++) late = await flood()
  assert.ok(late <= 100, `${late} ms`)
})

/** Gives how long 99 of 100 things that are to be done have to wait. */
async function flood() {
  const page = await browser.open(cluster, { hash: '#/topics/flood?from=live' })
  await page.getByText('Waiting for messages').waitFor()
  await page.waitForTimeout(500)
  const devtools = await page.context().newCDPSession(page)
  await devtools.send('Performance.enable')
  await page.evaluate(() => {
    globalThis.late = []
    // How long something that is to be done has to wait: what a click would.
    let last = performance.now()
    setInterval(() => {
      const now = performance.now()
      globalThis.late.push(now - last - 20)
      last = now
    }, 20)
  })
  const producer = spawn(program, ['produce', 'flood', '--brokers', `127.0.0.1:${cluster.ports[0]}`], { stdio: ['pipe', 'ignore', 'inherit'] })
  const began = Date.now()
  let sent = 0
  let heap = 0
  while (Date.now() - began < seconds * 1000) {
    const due = Math.min(seconds * 10_000, Math.floor((Date.now() - began) * 10))
    let lines = ''
    for (; sent < due; sent++) lines += `{"number":${sent},"filler":"${'x'.repeat(80)}"}\n`
    producer.stdin.write(lines)
    await new Promise(done => setTimeout(done, 50))
    const { metrics } = await devtools.send('Performance.getMetrics')
    heap = Math.max(heap, metrics.find(m => m.name === 'JSHeapUsedSize').value)
  }
  producer.stdin.end()
  await new Promise(done => producer.once('exit', done))
  await page.getByText(`${sent.toLocaleString('en')} messages came`).waitFor({ timeout: 10_000 })
  assert.ok(sent > seconds * 9_500, `${sent} were sent`)
  const late = (await page.evaluate(() => globalThis.late)).sort((a, b) => a - b)
  const at = q => Math.round(late[Math.floor(late.length * q)])
  console.log(`# ${sent} messages, heap ${Math.round(heap / 2 ** 20)} MB at most, waits p50 ${at(0.5)} p99 ${at(0.99)} most ${at(0.9999)} ms`)
  assert.ok(heap < 150 * 2 ** 20, `${heap} bytes`)
  await browser.close(page)
  return at(0.99)
}

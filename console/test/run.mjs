// Runs the tests of this folder in headless Chromium against real nodes, or a script of it that is
// named. Where there is no Chromium it says so and ends well, but in CI.
import { spawnSync } from 'node:child_process'
import { accessSync, constants, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const chromium = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(p => {
  try {
    accessSync(p, constants.X_OK)
    return true
  } catch {
    return false
  }
})
if (!chromium) {
  console.log('skipped: the console is tested in Chromium, which is not here (set CHROMIUM to its path)')
  process.exit(process.env.CI ? 1 : 0)
}
process.chdir(fileURLToPath(new URL('..', import.meta.url)))
const [script, ...rest] = process.argv.slice(2)
const args = script?.endsWith('.mjs') ? [`test/${script}`, ...rest] : ['--test', '--test-concurrency=1', ...readdirSync('test').filter(f => f.endsWith('.test.mjs')).map(f => `test/${f}`), ...process.argv.slice(2)]
const run = spawnSync(process.execPath, args, { stdio: 'inherit', env: { ...process.env, CHROMIUM: chromium } })
process.exit(run.status ?? 1)

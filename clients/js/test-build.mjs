// Turns src and test into JavaScript in build, file by file, for the tests. Types are checked by `npm run check`.
import { readdirSync, rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

process.chdir(fileURLToPath(new URL('.', import.meta.url)))
rmSync('build', { recursive: true, force: true })
const files = ['src', 'test'].flatMap(dir => readdirSync(dir).filter(f => f.endsWith('.ts')).map(f => `${dir}/${f}`))
await build({ entryPoints: files, outdir: 'build', outbase: '.', format: 'esm', target: 'es2022', logLevel: 'warning' })

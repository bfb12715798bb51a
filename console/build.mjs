// Builds dist, which is committed and embedded in the node: minified modules whose names carry a
// hash of what is in them, one style sheet, the icon and index.html. With --check it builds into
// memory and compares: dist must be what src makes.
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

process.chdir(fileURLToPath(new URL('.', import.meta.url)))
const result = await build({
  entryPoints: [{ in: 'src/main.tsx', out: 'console' }, { in: 'src/style.css', out: 'style' }],
  outdir: 'dist',
  bundle: true,
  splitting: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  charset: 'utf8',
  legalComments: 'none',
  entryNames: '[name]-[hash]',
  chunkNames: '[name]-[hash]',
  write: false,
  logLevel: 'warning',
})
const files = new Map(result.outputFiles.map(f => [basename(f.path), Buffer.from(f.contents)]))
const icon = readFileSync('src/icon.svg')
const iconName = `icon-${createHash('sha256').update(icon).digest('hex').slice(0, 8)}.svg`
files.set(iconName, icon)
const named = pattern => [...files.keys()].find(name => pattern.test(name))
const page = readFileSync('src/index.html', 'utf8')
  .replace('SCRIPT', named(/^console-.*\.js$/))
  .replace('STYLE', named(/^style-.*\.css$/))
  .replace('ICON', iconName)
files.set('index.html', Buffer.from(page))

if (process.argv.includes('--check')) {
  const there = readdirSync('dist')
  const differs = [...new Set([...there, ...files.keys()])].filter(
    name => !files.has(name) || !there.includes(name) || !files.get(name).equals(readFileSync(join('dist', name))),
  )
  if (differs.length) {
    console.error(`console/dist is not what console/src makes; make console builds it: ${differs.join(', ')}`)
    process.exit(1)
  }
  console.log(`console/dist is what console/src makes: ${files.size} files`)
} else {
  rmSync('dist', { recursive: true, force: true })
  mkdirSync('dist')
  for (const [name, bytes] of files) writeFileSync(join('dist', name), bytes)
}

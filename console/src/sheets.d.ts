declare module '*.sheet.css' {
  const name: string
  export default name
}

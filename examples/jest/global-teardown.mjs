export default () => globalThis.stopKiegate();

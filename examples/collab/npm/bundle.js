// What the page takes of npm, in one file: yjs.js is made of this.
export { Doc, UndoManager, applyUpdate, createAbsolutePositionFromRelativePosition, createRelativePositionFromTypeIndex, encodeStateAsUpdate, encodeStateVector } from "yjs";
export { WebsocketProvider } from "y-websocket";

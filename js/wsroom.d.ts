/** Idle before open and after close; waiting for the next attempt; stopped when the other end said so. */
export type State = "idle" | "connecting" | "open" | "waiting" | "stopped";

/** Why a socket is idle, waiting or stopped. */
export interface Why {
  /** The close code; 1006 if the connection was lost or an attempt failed. */
  code: number;
  /** The close frame's reason, or, with 1006, "timeout", "silence" or "pagehide" if the client ended it. */
  reason: string;
  /** When waiting: milliseconds until the next attempt. */
  delay?: number;
  /** What url, protocols or renew threw, or the WebSocket's constructor. */
  error?: unknown;
}

/** What the client needs of a WebSocket: the browser's, Node's, ws, undici's, React Native's. */
export interface WebSocketLike {
  readonly readyState: number;
  readonly protocol: string;
  binaryType: string;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: any): void;
  close(code?: number, reason?: string): void;
}

export type Data = string | ArrayBuffer | ArrayBufferView | Blob;
type ValueOf<T> = T | (() => T | Promise<T>);

export interface Options {
  /**
   * Subprotocols of the application, or a function that is asked before each attempt. Entries that begin with
   * "bearer." are tokens.
   */
  protocols?: ValueOf<string | string[] | undefined>;
  /**
   * Whether to offer wsroom.v1; the default is true. A browser fails a connection to a server that chooses none of
   * the subprotocols offered, so use false for a server that knows neither wsroom.v1 nor one of protocols.
   */
  resume?: boolean;
  /** What Socket.cursor was, to go on from there after a reload. Text that isn't understood is ignored. */
  cursor?: string | null;
  /** How many messages send keeps while there is no connection; the default is 0. */
  buffer?: number;
  /** Milliseconds that an attempt may take, and that the server may be late; the default is 10,000. */
  timeout?: number;
  /** Milliseconds that the first wait takes at most; each failure doubles it. The default is 1,000. */
  minDelay?: number;
  /** Milliseconds that bound the doubling; the default is 30,000. */
  maxDelay?: number;
  /**
   * Decides what follows after a close code: false to stop, a number of milliseconds to wait at least, or undefined
   * for the usual. tries counts the failed attempts in a row.
   */
  policy?(code: number, reason: string, tries: number): number | false | undefined | void;
  /**
   * Gets a new login after close code 4401, before the next attempt. If it returns false, the socket stops; if it
   * throws, it is asked again at the next attempt. Without it the socket stops.
   */
  renew?(): unknown;
  /** The WebSocket to use instead of the global one. */
  WebSocket?: new (url: string, protocols: string[]) => WebSocketLike;

  /**
   * Is given each message; room is undefined for messages to this connection alone or to all, and with a plain server.
   * When it is called, Socket.cursor counts the message as handled. Binary messages are an ArrayBuffer.
   */
  onmessage?(data: any, room?: string): void;
  /**
   * Tells that the connection has entered a room. If resumed is true, all that was missed follows. If it is false,
   * forget what is known of the room; a snapshot may follow.
   */
  onroom?(room: string, resumed: boolean): void;
  /** Tells that messages of a room are missing before the next one. */
  ongap?(room: string): void;
  /** Tells of each new state, and again when a wait gets shorter. */
  onstate?(state: State, why?: Why): void;
}

/**
 * A connection that comes back by itself. With a hub of wsroom that has WithHistory, it is sent what it has missed,
 * each message once and in order. It connects when open is called. A function of the options that throws does no
 * harm to the socket; the error is reported as one that nobody caught.
 */
export class Socket {
  /**
   * url is a WebSocket's address, or a function that is asked before each attempt; if that throws, it is asked
   * again.
   */
  constructor(url: ValueOf<string | URL>, options?: Options);

  readonly state: State;

  /**
   * Where the client is in each room, as text. Given as the option cursor to the Socket of a page that was reloaded,
   * it makes that one go on from here.
   */
  readonly cursor: string;

  /** Whether there is a position to go on from that the server should still know. */
  readonly resumable: boolean;

  /** Connects now, unless it is connecting or open. */
  open(): void;

  /** Ends the connection, for a browser with 1000 or a code from 3000 to 4999, and drops what send has kept. */
  close(code?: number, reason?: string): void;

  /**
   * Hands data to the open connection and returns true. If there is none, it keeps data for the next one and returns
   * true while fewer than buffer messages are kept, or returns false.
   */
  send(data: Data): boolean;
}

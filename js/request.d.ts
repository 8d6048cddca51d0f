import { Options, Socket, State, Why } from "./wsroom.js";

/** Why a request failed, or, thrown by a function of `on`, what the server is told. */
export class RequestError extends Error {
  /**
   * The server's code, such as "unknown_type", "bad_data", "internal" or one of the application's; "closed" if there is
   * no connection or it has ended before the reply; "timeout" if the reply hasn't come in time.
   */
  readonly code: string;
  constructor(code: string, message?: string);
}

/** The names of the fields of messages; the defaults are those of package route. */
export interface Fields {
  type?: string;
  id?: string;
  data?: string;
  error?: string;
  code?: string;
  message?: string;
}

export interface RequestOptions extends Omit<Options, "onmessage"> {
  /** The names of the messages' fields, as the server has them. */
  fields?: Fields;
  /**
   * A function for each type of message. What it returns answers a question of the server. If it throws a RequestError, the
   * server is told that. It is told "internal" of any other error, which is reported as one that nobody caught. For a
   * question without a function the server is told "unknown_type".
   */
  on?: Record<string, (data: any, room?: string) => unknown>;
  /** Is given each message whose type has no function in `on`, unless it is a question. */
  onmessage?(type: string, data: any, room?: string): void;
  /** Is given each message of another form: one that is binary, isn't JSON, or has no type. */
  onother?(data: any, room?: string): void;
}

/** A Socket whose messages have types, for a server that uses package route. */
export class RequestSocket extends Socket {
  constructor(url: ConstructorParameters<typeof Socket>[0], options?: RequestOptions);

  /** Sends a message of this type, and returns what send returns. */
  tell(type: string, data?: unknown): boolean;

  /**
   * Sends a request and returns the data of its reply. It rejects with a RequestError if the server replies with an error, if
   * the connection ends first, if the socket is closed or stops before there is one, if nothing takes the message, or if no
   * reply has come within timeout milliseconds: 10,000 by default, and 24 days at most, for which Infinity stands. A request
   * that has failed so may have been handled all the same.
   */
  request<T = any>(type: string, data?: unknown, options?: { timeout?: number }): Promise<T>;
}

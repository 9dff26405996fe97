//! The client against nodes that do what a script says: goal, that retries, fallback, streams and
//! typed errors hold over a real connection; method, an in-process gRPC server per node that
//! records every request and answers from a list.

mod calls;
mod fake;

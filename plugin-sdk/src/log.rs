//! The one thing a plugin may call. Lines are bounded in number and length by the host and never part of the answer;
//! natively they go to standard error.

#[cfg(target_arch = "wasm32")]
use crate::bindings::plugin::merganser::plugin::log::{Level, write};

macro_rules! level {
    ($(#[$doc:meta])* $name:ident, $level:ident) => {
        $(#[$doc])*
        pub fn $name(message: &str) {
            #[cfg(target_arch = "wasm32")]
            write(Level::$level, message);
            #[cfg(not(target_arch = "wasm32"))]
            eprintln!(concat!(stringify!($name), ": {}"), message);
        }
    };
}

level!(
    /// For the author.
    debug, Debug
);
level!(
    /// For the operator, rarely.
    info, Info
);
level!(
    /// Something is odd, and the answer is good all the same.
    warn, Warn
);
level!(
    /// Something is wrong. The last such line is shown with the trap, if the call ends in one.
    error, Error
);

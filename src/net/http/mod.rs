//! What is on the wire of HTTP/1.1: requests out, answers in (RFC 9110 and 9112).
//!
//! Knows bytes, not connections: who has some of an answer feeds it, however it is cut into pieces, and is told what
//! was taken. So everything here is tested and fuzzed without a network.

pub mod base64;
pub mod body;
pub mod date;
pub mod head;
pub mod request;

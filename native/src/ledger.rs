//! The ledger's hashes and ids. The twin is `ledger`; docs/design/ledger.md specifies them.

use sha2::{Digest, Sha256};

const IDENTITY_TAG: &[u8] = b"headgate/identity/v1\0";
const EVENT_TAG: &[u8] = b"headgate/event/v1\0";

/// A SHA-256.
pub type Hash = [u8; 32];

/// Return SHA-256(salt || content).
pub fn commitment(salt: &[u8], content: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(salt);
    hash.update(content);
    hash.finalize().into()
}

/// Return the identity of (receiver, scope, key).
pub fn identity(receiver: &str, scope: &str, key: &str) -> Hash {
    let mut hash = Sha256::new();
    hash.update(IDENTITY_TAG);
    for part in [receiver, scope, key] {
        hash.update((part.len() as u32).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Return the UUIDv7 of a time in microseconds, from 8 random bytes.
pub fn event_id(created_at: i64, random: [u8; 8]) -> Option<[u8; 16]> {
    let created_at = u64::try_from(created_at).ok()?;
    let (milliseconds, microseconds) = (created_at / 1_000, created_at % 1_000);
    if milliseconds >> 48 != 0 {
        return None;
    }
    let high = (milliseconds << 16) | 0x7000 | ((microseconds << 12) / 1_000);
    let low = (u64::from_be_bytes(random) & 0x3FFF_FFFF_FFFF_FFFF) | 0x8000_0000_0000_0000;
    let mut id = [0; 16];
    id[..8].copy_from_slice(&high.to_be_bytes());
    id[8..].copy_from_slice(&low.to_be_bytes());
    Some(id)
}

/// What links an event to the one before it.
pub struct Linked<'a> {
    /// The hash of the event before.
    pub previous: &'a Hash,
    /// Its sequence.
    pub sequence: u64,
    /// In microseconds.
    pub created_at: i64,
    /// Its id.
    pub id: &'a [u8; 16],
    /// Empty without a key.
    pub identity: &'a [u8],
    /// Of its content.
    pub commitment: &'a [u8],
    /// The receiver's name.
    pub receiver: &'a str,
}

/// Return the hash of an event.
pub fn event_hash(event: &Linked<'_>) -> Hash {
    let mut hash = Sha256::new();
    hash.update(EVENT_TAG);
    hash.update(event.previous);
    hash.update(event.sequence.to_be_bytes());
    hash.update(event.created_at.to_be_bytes());
    hash.update(event.id);
    let mut identity = [0; 32];
    identity[..event.identity.len()].copy_from_slice(event.identity);
    hash.update(identity);
    hash.update(event.commitment);
    hash.update(event.receiver);
    hash.finalize().into()
}

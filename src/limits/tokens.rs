//! Bounds of viewers' tokens: of what is read of them, of their keys, of what is kept.

/// A token that lets a viewer in.
pub const ACCESS_TOKEN_BYTES_MAX: usize = 8 << 10;
/// An expression of URIs in such a token, or in a key file.
pub const TOKEN_PATTERN_BYTES_MAX: usize = 2 << 10;
/// The same compiled.
pub const TOKEN_PATTERN_COMPILED_BYTES_MAX: usize = 128 << 10;
/// Keys that a token is tried by which names none.
pub const TOKEN_KEYS_TRIED_MAX: usize = 8;
/// Cookies of a token's name that are looked at: two sites may have set one each.
pub const TOKENS_IN_COOKIES_MAX: usize = 4;
/// How deep the parts of a token of CBOR may lie in each other.
pub const TOKEN_NESTED_MAX: usize = 16;
/// Parts of such a token.
pub const TOKEN_ITEMS_MAX: usize = 1_024;
/// What a list in it may hold: networks, methods, headers.
pub const TOKEN_LIST_MAX: usize = 64;
/// Expressions in it, each of which is compiled.
pub const TOKEN_PATTERNS_MAX: usize = 16;
/// What its renewal may add, in seconds: a year.
pub const TOKEN_RENEWAL_SECONDS_MAX: f64 = 31_622_400.0;
/// Keys of one key file.
pub const KEYS_MAX: usize = 256;
/// A key file.
pub const KEY_FILE_BYTES_MAX: usize = 1 << 20;
/// Directives of one, each of which may be an expression that is compiled.
pub const KEY_FILE_DIRECTIVES_MAX: usize = 256;
/// What the attribute of a URI is called that a token is in.
pub const TOKEN_NAME_BYTES_MAX: usize = 64;
/// What is kept of tokens that were verified is this part of `memory.total`,
pub const VERDICTS_SHARE: u64 = 128;
/// at least
pub const VERDICTS_BYTES_MIN: u64 = 4 << 20;
/// and at most.
pub const VERDICTS_BYTES_MAX: u64 = 512 << 20;
/// Tokens whose bearers are counted.
pub const TOKEN_BEARERS_MAX: usize = 16_384;
/// Those whose connections one connection counts as, the last ones: a proxy brings many.
pub const BEARERS_PER_CONNECTION_MAX: usize = 32;
/// Uses of tokens that are remembered as they may be used once.
pub const TOKEN_USES_MAX: usize = 65_536;
/// Those of one token.
pub const TOKEN_USES_OF_ONE_MAX: u32 = 256;
/// Those that wait to be written.
pub const TOKEN_USES_WAITING_MAX: usize = 4_096;
/// What bearers and uses take.
pub const BEARERS_AND_USES_BYTES: u64 = 10 << 20;

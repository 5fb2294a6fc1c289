//! Tells by its name whether a value is a secret.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use super::layers::decoded;

/// Bytes of a name; what is longer is hidden unread.
pub(super) const LONGEST_NAME: usize = 256;

/// Names of secrets: of headers, parameters, keys of JSON and fields of forms.
static SECRET: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?i)passw(?:or)?d|passwort|pswd|passphrase|passcode|passkey|secret|credential|session[-_]?id|sessid",
        r"|(?:api|private|access|auth|subscription|functions?|account|shared|signing|encryption",
        r"|license|consumer|client|app|application|master|service|admin|rapidapi|deploy|hmac|ssh|session|gotify)[-_]?key",
        r"|(?:token|jwt|authorization|assertion|csrf|xsrf|cookie)(?:[-_]?value)?\]?$",
        r"|(?:access|refresh|auth|api|device|push|bearer|session|login)[-_]?tokens\]?$|^tokens\]?$",
        r"|id_token_hint|one[-_]?time[-_]?code|oauth[-_]?verifier|rspauth\]?$",
        r"|(?:user|db|root|admin|ftp|smtp|mail)[-_]?pass\]?$",
        r"|^(?:auth[-_]?|service[-_]?|cas[-_]?)?ticket\]?$",
        r"|saml[-_]?(?:response|request|art)|client[-_]?principal\]?$|oidc[-_]?data\]?$",
        r"|code[-_]?verifier|device[-_]?code|hmac",
        r"|(?:auth|authorization|verification|reset|security|access|otp|sms|mfa|2fa|backup|recovery|login)[-_]?code\]?$",
        r"|(?:^|[-_.:\[ ])(?:credit|debit)?(?:card|cc)[-_\[ ]*(?:number|num|no)\]?$",
        r"|(?:^|[-_.:\[ ]|card)(?:cvv|cvc|csc)2?(?:[-_]?(?:code|number|value))?\]?$",
        r"|(?:^|[-_.:\[ ])(?:pass|pwd|pw|sig|signature(?:-\w+)?|session|sid|otp|totp|auth|pin|mfa",
        r"|pin[-_]?code|webhook)\]?$",
    ))
    .ok()
});

/// Names that say something about a secret, and what only sounds like one.
static ABOUT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?i)secretar|passwordless|credentialed|tokeniz",
        r"|[-_.\[](?:at|on|date|time|length|len|strength|policy|hint|types?|count|limit|required|enabled",
        r"|disabled|visible|changed|updated|created|expires?|expired|expiry|expiration|expires_in|age|ttl",
        r"|max|min|ur[li]|link|label|title|placeholder|help|description|page|rules|score|attempts",
        r"|version|status|valid|errors?|message|manager|name|format|alg|algorithm|mode|scopes?|issuer",
        r"|domain|path|endpoint|host|provider|method|class|style|storage|days)\]?$",
    ))
    .ok()
});

/// Whether what stands under this name is a secret.
pub(super) fn is_secret(name: &str) -> bool {
    if name.len() > LONGEST_NAME {
        return true;
    }
    let (Some(secret), Some(about)) = (&*SECRET, &*ABOUT) else {
        return true;
    };
    let name = decoded(name);
    let name = with_separators(&name);
    let mut rest = Some(&*name);
    let mut is_any = false;
    for _ in 0..MOST_STEPS {
        let Some(name) = rest else { break };
        if about.is_match(name) && !name.ends_with("id_token_hint") {
            return false;
        }
        is_any |= secret.is_match(name);
        rest = without_number(name);
    }
    is_any
}

/// How many lists and numbers are taken off a name.
const MOST_STEPS: usize = 6;

/// `token` of `token[]`, `token[0]`, `token_1` and `token_v2`.
fn without_number(name: &str) -> Option<&str> {
    if let Some(inside) = name.strip_suffix(']') {
        let without = inside.trim_end_matches(|it: char| it.is_ascii_digit());
        // In `user[pass1]` the number is the name's.
        if without.len() < inside.len() && !without.ends_with('[') {
            return Some(without);
        }
        return inside.rfind('[').filter(|it| *it > 0).map(|at| &name[..at]);
    }
    if let Some(open) = name.rfind('[').filter(|it| *it > 0) {
        return Some(&name[..open]);
    }
    let without = name.trim_end_matches(|it: char| it.is_ascii_digit());
    if without.len() == name.len() {
        return None;
    }
    let without = without
        .strip_suffix(['v', 'V'])
        .filter(|it| it.ends_with(['-', '_', '.']))
        .unwrap_or(without);
    let without = without.trim_end_matches(['-', '_', '.']);
    (!without.is_empty()).then_some(without)
}

/// Whether what stands in a header of this name, in lower case, is a secret. Some
/// names are of no secret elsewhere.
pub(super) fn is_secret_header(name: &str) -> bool {
    const HEADERS: [&str; 6] = [
        "dpop",
        "x-jfrog-art-api",
        "x-honeycomb-team",
        "cb-access-sign",
        "cst",
        "x-security-token",
    ];
    HEADERS.contains(&name) || is_secret(name)
}

/// `userPass` as `user_Pass`: where a word of a name begins.
fn with_separators(name: &str) -> Cow<'_, str> {
    let begins = |pair: &[u8]| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase();
    if !name.as_bytes().windows(2).any(begins) {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len() + 4);
    let mut before = ' ';
    for char in name.chars() {
        if before.is_ascii_lowercase() && char.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(char);
        before = char;
    }
    Cow::Owned(out)
}

/// A name in a text has no clear beginning: of a long one it is the end.
pub(super) fn end_of_name(name: &str) -> &str {
    &name[name.ceil_char_boundary(name.len().saturating_sub(LONGEST_NAME))..]
}

/// Values that say how credentials are used, of what kind a field is, or what
/// became of a credential.
const WORDS: [&str; 32] = [
    "true",
    "false",
    "null",
    "nil",
    "none",
    "undefined",
    "include",
    "omit",
    "same-origin",
    "required",
    "optional",
    "password",
    "hidden",
    "text",
    "string",
    "token",
    "basic",
    "bearer",
    "digest",
    "negotiate",
    "invalid",
    "expired",
    "missing",
    "incorrect",
    "unknown",
    "changed",
    "updated",
    "default",
    "disabled",
    "enabled",
    "current-password",
    "new-password",
];

/// Whether a value under a secret's name is none.
pub(super) fn is_word(value: &str) -> bool {
    WORDS.iter().any(|word| word.eq_ignore_ascii_case(value))
}

/// Whether somebody drew it: letters and digits, and long enough.
pub(super) fn looks_drawn(value: &str, least: usize) -> bool {
    let has = |is: fn(&u8) -> bool| value.as_bytes().iter().any(is);
    value.len() >= least && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
}

/// Whether it is an id of that form, which names things and opens none.
pub(super) fn is_uuid(value: &str) -> bool {
    value.len() == 36
        && value.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_told_from_names_about_them() {
        for name in [
            "password",
            "user[password]",
            "user%5Bpassword%5D",
            "newPassword",
            "passwd",
            "userPass",
            "csrf_token",
            "authenticity_token",
            "x-csrftoken",
            "secretAccessKey",
            "AccountKey",
            "SharedAccessKey",
            "otp",
            "pin",
            "cvv",
            "card[number]",
            "cardNumber",
            "SAMLResponse",
            "x-amzn-oidc-data",
            "cf-access-jwt-assertion",
            "x-ms-client-principal",
            "x-hub-signature-256",
            "x-shopify-hmac-sha256",
            "resetCode",
            "client_assertion",
            "code_verifier",
            "access_tokens",
            "X-Amz-Credential",
            "__VIEWSTATE_token",
            "wsse.password",
            "apikey",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "passenger",
            "compass",
            "author",
            "monkey",
            "keyboard",
            "token_type",
            "max_tokens",
            "tokenizer",
            "secretary",
            "password_changed_at",
            "passwordLength",
            "session_name",
            "token_endpoint",
            "public_key",
            "sort_key",
            "idempotency-key",
            "sec-websocket-key",
            "signed",
            "assign",
            "design",
            "pinned",
            "spinner",
            "discard_number",
            "authority",
            "sidebar",
            "expires_in",
            "code",
            "state",
            "x-ms-client-principal-id",
            "passport",
            "bypass",
            "cookies",
            "hash",
            "etag",
            "id",
            "user_id",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn a_name_in_a_list_or_with_a_number_is_the_same_name() {
        for name in [
            "token[]",
            "token%5B%5D",
            "token[0]",
            "user[token][x]",
            "user[token][]",
            "pass[pass1]",
            "user[pass2]",
            "pass2",
            "token_1",
            "accessToken1",
            "auth_token_v2",
            "LtpaToken2",
            "PWD1",
            "sig2",
            "tokens",
            "id_token_hint",
            "session_key",
            "userpass",
            "dbPass",
            "pswd",
            "passwort",
            "pin_code",
            "cardcvc",
            "cvv_code",
            "one_time_code",
            "oauth_verifier",
            "ticket",
            "rspauth",
            "x-gotify-key",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "session[title]",
            "auth[type]",
            "user[name][0]",
            "oauth2",
            "max_tokens_2",
            "sha256",
            "login_hint",
            "tickets",
            "spin2",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }
}

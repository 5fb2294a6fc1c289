//! Credentials that are known by their own form, whatever stands before them:
//! keys and tokens that their issuers mark with a prefix, signed tokens, private
//! keys, and the numbers of payment cards.
//!
//! One pass over the bytes looks at each place where a word begins, and at few
//! others. How far a run of characters goes is remembered, so each byte is read
//! a few times only, however many forms might begin there.

use std::ops::Range;
use std::sync::LazyLock;

use super::places::{Place, Places};

/// Characters that a credential is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Hex,
    Alnum,
    /// As in URL-safe base64.
    Url,
    /// As in base64.
    Base64,
    /// All of these, and dots.
    Dotted,
}

impl Of {
    const COUNT: usize = 5;

    fn has(self, byte: u8) -> bool {
        match self {
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Alnum => byte.is_ascii_alphanumeric(),
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Self::Base64 => byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='),
            Self::Dotted => Self::Url.has(byte) || matches!(byte, b'.' | b'=' | b'~' | b'+' | b'/'),
        }
    }
}

/// A prefix, and how many characters of a kind follow it.
#[derive(Debug)]
struct Form {
    prefix: &'static str,
    of: Of,
    least: usize,
    most: usize,
}

impl Form {
    /// Whether what follows the prefix was drawn: words with hyphens are as long.
    fn is_drawn(&self, rest: &[u8]) -> bool {
        let has = |is: fn(&u8) -> bool| rest.iter().any(is);
        if !rest.iter().any(|it| *it != rest[0]) {
            return false;
        }
        // Octopus draws capital letters.
        if self.prefix == "API-" {
            return !has(u8::is_ascii_lowercase);
        }
        self.prefix.len() > 4
            || matches!(self.of, Of::Alnum | Of::Hex)
            || (has(u8::is_ascii_digit)
                && (has(u8::is_ascii_uppercase) || !has(u8::is_ascii_lowercase)))
    }
}

/// Whether a file's ending stands there, as behind the hash in its name.
fn is_file_end(rest: &[u8]) -> bool {
    let Some(end) = rest.strip_prefix(b".") else {
        return false;
    };
    let length = end.iter().take_while(|it| it.is_ascii_lowercase()).count();
    (2..6).contains(&length) && !end.get(length).is_some_and(u8::is_ascii_alphanumeric)
}

const fn form(prefix: &'static str, of: Of, least: usize) -> Form {
    Form {
        prefix,
        of,
        least,
        most: usize::MAX,
    }
}

const fn exact(prefix: &'static str, of: Of, least: usize, most: usize) -> Form {
    Form {
        prefix,
        of,
        least,
        most,
    }
}

/// Prefixes that issuers of credentials document, and scanners look for.
const FORMS: &[Form] = &[
    // Clouds.
    exact("AKIA", Of::Alnum, 16, 16),
    exact("ASIA", Of::Alnum, 16, 16),
    exact("ABIA", Of::Alnum, 16, 16),
    exact("ACCA", Of::Alnum, 16, 16),
    exact("A3T", Of::Alnum, 17, 17),
    form("ABSK", Of::Base64, 60),
    form("bedrock-api-key-", Of::Base64, 20),
    exact("AIza", Of::Url, 30, 40),
    form("GOCSPX-", Of::Url, 20),
    form("ya29.", Of::Url, 20),
    form("1//0", Of::Url, 30),
    exact("LTAI", Of::Alnum, 12, 20),
    exact("AKID", Of::Alnum, 32, 36),
    exact("YCA", Of::Url, 34, 38),
    exact("AQVN", Of::Url, 35, 38),
    form("t1.", Of::Dotted, 80),
    form("dop_v1_", Of::Hex, 40),
    form("doo_v1_", Of::Hex, 40),
    form("dor_v1_", Of::Hex, 40),
    form("dapi", Of::Hex, 32),
    form("v1.0-", Of::Dotted, 100),
    form("fo1_", Of::Url, 40),
    form("fm1a_", Of::Base64, 60),
    form("fm1r_", Of::Base64, 60),
    form("fm2_", Of::Base64, 60),
    form("tk-us-", Of::Url, 40),
    form("HRKU-", Of::Url, 30),
    form("pscale_tkn_", Of::Dotted, 30),
    form("pscale_oauth_", Of::Dotted, 30),
    form("pscale_pw_", Of::Dotted, 30),
    form("hvs.", Of::Url, 20),
    form("hvb.", Of::Url, 60),
    form("hvr.", Of::Url, 20),
    form("atlasv1.", Of::Url, 40),
    form("pul-", Of::Hex, 40),
    form("sha256~", Of::Url, 40),
    form("dp.pt.", Of::Alnum, 40),
    form("dp.st.", Of::Dotted, 40),
    form("dp.ct.", Of::Alnum, 40),
    form("EZAK", Of::Alnum, 54),
    form("EZTK", Of::Alnum, 54),
    form("cio_", Of::Alnum, 30),
    form("vercel_", Of::Alnum, 20),
    form("vcp_", Of::Alnum, 20),
    form("nfp_", Of::Alnum, 30),
    form("sbp_", Of::Hex, 40),
    form("sb_secret_", Of::Url, 20),
    form("rnd_", Of::Alnum, 24),
    form("tskey-", Of::Url, 16),
    form("cfut_", Of::Alnum, 30),
    // Code and packages.
    form("ghp_", Of::Alnum, 30),
    form("gho_", Of::Alnum, 30),
    form("ghu_", Of::Alnum, 30),
    form("ghs_", Of::Alnum, 30),
    form("ghr_", Of::Alnum, 30),
    form("github_pat_", Of::Url, 40),
    form("glpat-", Of::Dotted, 20),
    form("gldt-", Of::Url, 20),
    form("glrt-", Of::Dotted, 20),
    form("glft-", Of::Url, 20),
    form("glimt-", Of::Url, 20),
    form("glptt-", Of::Hex, 40),
    form("glcbt-", Of::Url, 20),
    form("glagent-", Of::Url, 40),
    form("gloas-", Of::Url, 40),
    form("glsoat-", Of::Url, 20),
    form("glffct-", Of::Url, 20),
    form("GR1348941", Of::Url, 20),
    form("ATATT3", Of::Dotted, 60),
    form("ATBB", Of::Alnum, 28),
    form("ATCTT3", Of::Dotted, 60),
    form("npm_", Of::Alnum, 30),
    form("pypi-", Of::Url, 50),
    form("rubygems_", Of::Hex, 40),
    form("CLOJARS_", Of::Alnum, 50),
    form("cioA", Of::Alnum, 32),
    form("oy2", Of::Alnum, 43),
    form("dckr_pat_", Of::Url, 20),
    form("dckr_oat_", Of::Url, 20),
    form("AKCp", Of::Alnum, 60),
    form("cmVmd", Of::Alnum, 55),
    form("sgp_", Of::Url, 40),
    form("sq0atp-", Of::Url, 20),
    form("sq0csp-", Of::Url, 30),
    form("squ_", Of::Alnum, 36),
    form("sqp_", Of::Alnum, 36),
    form("sqa_", Of::Alnum, 36),
    form("PMAK-", Of::Url, 50),
    form("rdme_", Of::Alnum, 60),
    form("pnu_", Of::Alnum, 30),
    form("lin_api_", Of::Alnum, 32),
    form("lin_oauth_", Of::Alnum, 32),
    form("CCIPAT_", Of::Url, 30),
    form("CCIPRJ_", Of::Url, 30),
    form("bkua_", Of::Alnum, 30),
    exact("API-", Of::Alnum, 26, 32),
    form("figd_", Of::Url, 30),
    form("ntn_", Of::Alnum, 40),
    form("secret_", Of::Alnum, 40),
    form("pat.", Of::Dotted, 50),
    form("CFPAT-", Of::Url, 40),
    form("apify_api_", Of::Alnum, 30),
    form("sl.u.", Of::Url, 40),
    form("sl.", Of::Url, 60),
    form("e2b_", Of::Alnum, 30),
    form("k8s-aws-v1.", Of::Url, 40),
    form("sat.", Of::Dotted, 50),
    form("tfp_", Of::Dotted, 40),
    form("duffel_", Of::Url, 40),
    form("sm_aat_", Of::Alnum, 16),
    form("sm_pat_", Of::Alnum, 16),
    form("sm_sat_", Of::Alnum, 16),
    form("dt0c01.", Of::Dotted, 60),
    form("dt0s01.", Of::Dotted, 60),
    form("phc_", Of::Alnum, 40),
    form("phx_", Of::Alnum, 40),
    form("glc_", Of::Base64, 32),
    form("glsa_", Of::Url, 40),
    form("eyJrIjoi", Of::Base64, 50),
    form("NRAK-", Of::Alnum, 27),
    form("NRII-", Of::Url, 32),
    form("NRJS-", Of::Hex, 19),
    form("sntrys_", Of::Dotted, 60),
    form("sntryu_", Of::Hex, 60),
    form("ico-", Of::Alnum, 32),
    // Machines that write.
    form("sk-ant-", Of::Url, 40),
    form("sk-proj-", Of::Url, 40),
    form("sk-svcacct-", Of::Url, 40),
    form("sk-admin-", Of::Url, 40),
    form("sk-or-v1-", Of::Hex, 40),
    exact("sk-", Of::Alnum, 32, 64),
    form("hf_", Of::Alnum, 30),
    form("api_org_", Of::Alnum, 30),
    form("r8_", Of::Alnum, 35),
    form("gsk_", Of::Alnum, 40),
    form("xai-", Of::Alnum, 60),
    form("pplx-", Of::Alnum, 40),
    form("nvapi-", Of::Url, 50),
    form("fio-u-", Of::Dotted, 50),
    form("lsv2_pt_", Of::Url, 30),
    form("sk-lf-", Of::Url, 30),
    form("pcsk_", Of::Url, 40),
    form("tvly-", Of::Url, 28),
    form("tgp_v1_", Of::Url, 40),
    form("jina_", Of::Url, 40),
    // Messages.
    form("xoxb-", Of::Url, 18),
    form("xoxp-", Of::Url, 18),
    form("xoxa-", Of::Url, 8),
    form("xoxr-", Of::Url, 8),
    form("xoxe-", Of::Url, 18),
    form("xoxe.xoxb-", Of::Url, 18),
    form("xoxe.xoxp-", Of::Url, 18),
    form("xoxs-", Of::Url, 18),
    form("xoxo-", Of::Url, 18),
    form("xoxc-", Of::Url, 18),
    form("xoxd-", Of::Base64, 18),
    form("xapp-", Of::Url, 20),
    form("SG.", Of::Dotted, 40),
    exact("SK", Of::Hex, 32, 32),
    form("key-", Of::Hex, 32),
    form("xkeysib-", Of::Url, 60),
    form("xsmtpsib-", Of::Url, 60),
    form("re_", Of::Url, 30),
    form("EAAA", Of::Url, 50),
    form("EAA", Of::Alnum, 80),
    form("AAAAAAAAAAAAAAAAAAAAA", Of::Dotted, 40),
    form("s-s4t2ud-", Of::Hex, 50),
    form("s-s4t2af-", Of::Hex, 50),
    // Money.
    form("sk_live_", Of::Alnum, 10),
    form("sk_test_", Of::Alnum, 10),
    form("sk_prod_", Of::Alnum, 10),
    form("sk_org_live_", Of::Alnum, 10),
    form("sk_org_test_", Of::Alnum, 10),
    form("rk_live_", Of::Alnum, 10),
    form("rk_test_", Of::Alnum, 10),
    form("rk_prod_", Of::Alnum, 10),
    form("whsec_", Of::Base64, 20),
    form("shpat_", Of::Hex, 32),
    form("shpca_", Of::Hex, 32),
    form("shppa_", Of::Hex, 32),
    form("shpss_", Of::Hex, 32),
    form("shippo_live_", Of::Hex, 36),
    form("shippo_test_", Of::Hex, 36),
    form("FLWSECK-", Of::Url, 12),
    form("FLWSECK_TEST-", Of::Url, 12),
    form("access_token$production$", Of::Dotted, 30),
    form("access_token$sandbox$", Of::Dotted, 30),
    form("access-production-", Of::Url, 36),
    form("access-sandbox-", Of::Url, 36),
    form("access-development-", Of::Url, 36),
    form("live_sk_", Of::Alnum, 20),
    form("rzp_live_", Of::Alnum, 14),
    form("rzp_test_", Of::Alnum, 14),
    form("sec_", Of::Alnum, 32),
    // Keys, and what a login hands out.
    form("AGE-SECRET-KEY-1", Of::Alnum, 40),
    form("ops_eyJ", Of::Base64, 60),
    form("A3-", Of::Url, 28),
    form("p8e-", Of::Alnum, 32),
    form("gAAAAA", Of::Dotted, 60),
    form("v1.local.", Of::Dotted, 30),
    form("v2.local.", Of::Dotted, 30),
    form("v3.local.", Of::Dotted, 30),
    form("v4.local.", Of::Dotted, 30),
    form("v1.public.", Of::Dotted, 30),
    form("v2.public.", Of::Dotted, 30),
    form("v3.public.", Of::Dotted, 30),
    form("v4.public.", Of::Dotted, 30),
    form("ZXlK", Of::Base64, 36),
    form("TGT-", Of::Dotted, 24),
    form("ST-", Of::Dotted, 26),
    form("PT-", Of::Dotted, 26),
];

/// Forms by the first byte of their prefix.
static BY_FIRST: LazyLock<Vec<Vec<&'static Form>>> = LazyLock::new(|| {
    let mut by_first = vec![Vec::new(); 256];
    for form in FORMS {
        by_first[usize::from(form.prefix.as_bytes()[0])].push(form);
    }
    by_first
});

/// Where a run of characters ends that a place is in.
struct Runs<'a> {
    bytes: &'a [u8],
    ends: [usize; Of::COUNT],
}

impl Runs<'_> {
    fn end(&mut self, of: Of, from: usize) -> usize {
        let known = &mut self.ends[of as usize];
        if *known < from || (*known == from && self.bytes.get(from).is_some_and(|it| of.has(*it))) {
            let run = self.bytes[from..].iter().take_while(|it| of.has(**it));
            *known = from + run.count();
        }
        *known
    }
}

/// The credentials of a text. Of one that `goes_on` elsewhere, what only begins
/// at its end, too.
pub(super) fn credentials(text: &str, goes_on: bool, out: &mut Places) {
    let bytes = text.as_bytes();
    let mut runs = Runs {
        bytes,
        ends: [0; Of::COUNT],
    };
    let mut at = 0;
    while let Some(next) = next_begin(bytes, at) {
        at = next;
        let found = match bytes[at] {
            b':' => bot(&mut runs, at),
            b'~' => azure(&mut runs, at),
            b'-' => private_key(text, at),
            b'0'..=b'9' => card(bytes, at, goes_on).or_else(|| keyed(&mut runs, at, goes_on)),
            b'e' => token(&mut runs, at, goes_on).or_else(|| keyed(&mut runs, at, goes_on)),
            _ => keyed(&mut runs, at, goes_on),
        };
        at += 1;
        if let Some(found) = found {
            at = found.end.max(at);
            out.push(Place::of(found));
        }
    }
}

/// What a byte may begin.
static BEGINS: LazyLock<[Begin; 256]> = LazyLock::new(|| {
    let mut begins = [Begin::Nothing; 256];
    for (byte, begin) in (0..=u8::MAX).zip(&mut begins) {
        *begin = match byte {
            b':' | b'~' => Begin::Anywhere,
            b'-' => Begin::Word,
            byte if !byte.is_ascii_alphanumeric() => Begin::Nothing,
            b'2'..=b'6' | b'M' | b'N' | b'O' => Begin::Word,
            byte if byte.is_ascii_hexdigit() || !BY_FIRST[usize::from(byte)].is_empty() => {
                Begin::Word
            }
            _ => Begin::InWord,
        };
    }
    begins
});

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    Nothing,
    /// A part of a word with which no form begins.
    InWord,
    /// A form, where a word begins.
    Word,
    /// A form, wherever it stands.
    Anywhere,
}

/// Where a form may begin next: most bytes are passed over here.
fn next_begin(bytes: &[u8], from: usize) -> Option<usize> {
    let begins = &*BEGINS;
    let mut in_word = from > 0 && bytes[from - 1].is_ascii_alphanumeric();
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match begins[usize::from(*byte)] {
            Begin::Anywhere => return Some(at),
            Begin::Word if !in_word => return Some(at),
            Begin::Word => in_word = *byte != b'-',
            Begin::InWord => in_word = true,
            Begin::Nothing => in_word = false,
        }
    }
    None
}

/// A prefix and enough of what follows it.
fn keyed(runs: &mut Runs<'_>, at: usize, goes_on: bool) -> Option<Range<usize>> {
    let rest = &runs.bytes[at..];
    let forms = BY_FIRST.get(usize::from(*rest.first()?))?;
    for form in forms {
        if !rest.starts_with(form.prefix.as_bytes()) {
            continue;
        }
        let from = at + form.prefix.len();
        let end = runs.end(form.of, from);
        let length = end - from;
        let ends_word =
            form.of != Of::Hex || !runs.bytes.get(end).is_some_and(u8::is_ascii_alphanumeric);
        let ends_word =
            ends_word && !(matches!(form.prefix, "SK" | "key-") && is_file_end(&runs.bytes[end..]));
        let is_drawn = form.is_drawn(&runs.bytes[from..end]);
        let is_whole = (form.least..=form.most).contains(&length) && ends_word && is_drawn;
        let is_cut = goes_on && end == runs.bytes.len();
        if is_whole || is_cut {
            return Some(at..end);
        }
    }
    discord(runs, at)
        .or_else(|| mailchimp(runs, at))
        .or_else(|| airtable(runs, at))
}

/// A token of Airtable: its id, a dot and 64 hexadecimal digits.
fn airtable(runs: &mut Runs<'_>, at: usize) -> Option<Range<usize>> {
    let dot = at + "pat".len() + 14;
    let is_begun = runs.bytes[at..].starts_with(b"pat") && runs.bytes.get(dot) == Some(&b'.');
    if !is_begun || runs.end(Of::Alnum, at) != dot {
        return None;
    }
    let end = runs.end(Of::Hex, dot + 1);
    (end - dot > 64).then_some(at..end)
}

/// A signed or encrypted token: three or five parts with dots between them, of
/// which the first is an object of JSON.
fn token(runs: &mut Runs<'_>, at: usize, goes_on: bool) -> Option<Range<usize>> {
    const OBJECTS: [&[u8]; 4] = [b"eyJ", b"eyA", b"ewo", b"ew0"];
    let rest = &runs.bytes[at..];
    if !OBJECTS.iter().any(|begin| rest.starts_with(begin)) {
        return None;
    }
    let bytes = runs.bytes;
    let mut end = runs.end(Of::Url, at);
    let (head, mut parts) = (end - at, 1);
    while parts < 5 && bytes.get(end) == Some(&b'.') {
        parts += 1;
        end = runs.end(Of::Url, end + 1);
    }
    // In the other alphabet, or padded.
    if matches!(bytes.get(end), Some(b'=' | b'+' | b'/')) && parts > 1 {
        end = runs.end(Of::Dotted, end);
    }
    let is_cut = goes_on && end == bytes.len();
    (is_cut || (parts >= 2 && head >= 12 && end - at >= head + 9)).then_some(at..end)
}

/// A bot of Telegram: its number, a colon and 35 characters.
fn bot(runs: &mut Runs<'_>, colon: usize) -> Option<Range<usize>> {
    let before = runs.bytes[..colon].iter().rev().take(17);
    let digits = before.take_while(|it| it.is_ascii_digit()).count();
    if !(6..=16).contains(&digits) {
        return None;
    }
    let end = runs.end(Of::Url, colon + 1);
    ((33..=40).contains(&(end - colon - 1))).then_some(colon + 1..end)
}

/// A client secret of Azure: three characters, a digit, `Q~` and 31 or more.
fn azure(runs: &mut Runs<'_>, tilde: usize) -> Option<Range<usize>> {
    let begin = tilde.checked_sub(5)?;
    let [.., digit, b'Q'] = runs.bytes[begin..tilde] else {
        return None;
    };
    if !digit.is_ascii_digit() || !runs.bytes[begin..tilde].is_ascii() {
        return None;
    }
    let end = runs.end(Of::Dotted, tilde + 1);
    (end - tilde > 30).then_some(begin..end)
}

/// A bot's token of Discord: an id in base64, a time and a signature.
fn discord(runs: &mut Runs<'_>, at: usize) -> Option<Range<usize>> {
    if !matches!(runs.bytes[at], b'M' | b'N' | b'O') {
        return None;
    }
    let id = runs.end(Of::Url, at);
    if !(23..=28).contains(&(id - at)) || runs.bytes.get(id) != Some(&b'.') {
        return None;
    }
    let time = runs.end(Of::Url, id + 1);
    if time - id != 7 || runs.bytes.get(time) != Some(&b'.') {
        return None;
    }
    let end = runs.end(Of::Url, time + 1);
    (end - time > 26).then_some(at..end)
}

/// 32 hexadecimal digits, and the data centre they belong to.
fn mailchimp(runs: &mut Runs<'_>, at: usize) -> Option<Range<usize>> {
    if !runs.bytes[at].is_ascii_hexdigit() {
        return None;
    }
    let end = runs.end(Of::Hex, at);
    let place = runs.bytes.get(end..end + 4)?;
    (end - at == 32 && place.starts_with(b"-us") && place[3].is_ascii_digit())
        .then(|| at..runs.end(Of::Alnum, end + 1))
}

/// What stands between the first and the last line of a private key.
fn private_key(text: &str, at: usize) -> Option<Range<usize>> {
    const LONGEST_LINE: usize = 80;
    let rest = &text[at..];
    // The second is how SSH2 writes it.
    let (begin, mark) = [("-----BEGIN", "-----"), ("---- BEGIN", "----")]
        .into_iter()
        .find(|(begin, _)| rest.starts_with(begin))?;
    let line = &rest[begin.len()..];
    let line = &line[..line.floor_char_boundary(LONGEST_LINE)];
    let line = &line[..line.find(mark)?];
    let is_private = line.contains("PRIVATE") && line.contains("KEY");
    if !is_private || line.contains(['\n', '"', '<']) {
        return None;
    }
    let begin = at + begin.len() + line.len() + mark.len();
    let end = text[begin..].find(if mark.len() == 5 {
        "-----END"
    } else {
        "---- END"
    });
    Some(begin..end.map_or(text.len(), |end| begin + end))
}

/// Digits of the longest number of a card.
const MOST_DIGITS: usize = 19;

/// The number of a payment card, in groups or not.
fn card(bytes: &[u8], at: usize, goes_on: bool) -> Option<Range<usize>> {
    let follows = |it: &[u8]| {
        it.last()
            .is_some_and(|it| matches!(it, b'.' | b'_' | b'%' | b'-'))
    };
    if !matches!(bytes[at], b'2'..=b'6') || follows(&bytes[..at]) {
        return None;
    }
    let mut digits = [0_u8; MOST_DIGITS];
    let mut count = 0;
    let mut end = at;
    let mut between = None;
    let mut groups = [0_u8; 6];
    let mut group = 0;
    loop {
        match bytes.get(end) {
            Some(byte) if byte.is_ascii_digit() => {
                *digits.get_mut(count)? = byte - b'0';
                count += 1;
                groups[group] += 1;
                end += 1;
            }
            Some(byte @ (b' ' | b'-' | b'+'))
                if between.is_none_or(|it| it == *byte)
                    && bytes.get(end + 1).is_some_and(u8::is_ascii_digit)
                    && group + 1 < groups.len() =>
            {
                group += 1;
                between = Some(*byte);
                end += 1;
            }
            next => {
                if next.is_some_and(|it| it.is_ascii_alphabetic() || *it == b'_') {
                    return None;
                }
                break;
            }
        }
    }
    let (digits, groups) = (&digits[..count], &groups[..=group]);
    if goes_on && end == bytes.len() && count >= 8 && is_issued(digits, true) {
        return Some(at..end);
    }
    let grouped = groups.len() == 1
        || matches!(
            groups,
            [4, 4, 4, 1..=4] | [4, 6, 4..=5] | [4, 4, 4, 4, 1..=3]
        );
    (grouped && is_issued(digits, false) && has_check_digit(digits)).then_some(at..end)
}

/// Whether a network of cards issues numbers that begin so, of that length.
fn is_issued(digits: &[u8], is_begun: bool) -> bool {
    let begins = |count: usize| {
        let begin = digits.iter().take(count);
        begin.fold(0_u32, |all, digit| all * 10 + u32::from(*digit))
    };
    let lengths = match (begins(1), begins(2), begins(4)) {
        (4, _, _) => 13..=19,
        (_, 51..=55, _) | (_, _, 2221..=2720) => 16..=16,
        (_, 34 | 37, _) => 15..=15,
        (_, 60 | 62 | 64 | 65, _) => 16..=19,
        (_, 35, _) => 16..=16,
        (_, 30 | 36 | 38 | 39, _) => 14..=14,
        (_, 50 | 56..=58 | 63 | 67, _) => 16..=16,
        _ => return false,
    };
    let is_whole = match (begins(1), digits.len()) {
        (4, length) => matches!(length, 13 | 16 | 19),
        (_, length) => lengths.contains(&length),
    };
    is_whole || (is_begun && digits.len() < *lengths.end())
}

/// The sum that the last digit makes right (Luhn).
fn has_check_digit(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    let alike = digits.iter().all(|digit| *digit == digits[0]);
    sum.is_multiple_of(10) && !alike
}

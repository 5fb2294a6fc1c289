//! Binary modules written by hand, for shapes that no compiler makes.

/// An unsigned number as wasm writes it.
pub(crate) fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A count, then the items.
pub(crate) fn vector(items: &[Vec<u8>]) -> Vec<u8> {
    repeated(items.len(), &items.concat())
}

/// A count, then bytes that hold as many items.
pub(crate) fn repeated(count: usize, bytes: &[u8]) -> Vec<u8> {
    let mut out = leb(count);
    out.extend_from_slice(bytes);
    out
}

/// A length, then the bytes.
pub(crate) fn sized(bytes: &[u8]) -> Vec<u8> {
    repeated(bytes.len(), bytes)
}

pub(crate) fn section(id: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![id];
    out.extend(sized(content));
    out
}

pub(crate) fn custom(name: &str, content: &[u8]) -> Vec<u8> {
    let mut out = sized(name.as_bytes());
    out.extend_from_slice(content);
    section(0, &out)
}

/// A function body: groups of locals, code, and the final `end`.
pub(crate) fn body(locals: &[(usize, u8)], code: &[u8]) -> Vec<u8> {
    let groups: Vec<Vec<u8>> = locals
        .iter()
        .map(|(count, ty)| {
            let mut group = leb(*count);
            group.push(*ty);
            group
        })
        .collect();
    let mut out = vector(&groups);
    out.extend_from_slice(code);
    out.push(0x0b);
    sized(&out)
}

pub(crate) const I32: u8 = 0x7f;
pub(crate) const HEADER: &[u8] = b"\0asm\x01\0\0\0";

/// A module that keeps the contract and allows, with more in it.
#[derive(Default)]
pub(crate) struct Module {
    /// Bodies of further functions, each of type `()`.
    pub(crate) functions: Vec<Vec<u8>>,
    /// Replaces the handler's code before its answer.
    pub(crate) handler: Vec<u8>,
    /// Locals of the handler.
    pub(crate) locals: Vec<(usize, u8)>,
    /// Further types.
    pub(crate) types: Vec<Vec<u8>>,
    /// Further exports.
    pub(crate) exports: Vec<Vec<u8>>,
    /// Data segments besides the answer's.
    pub(crate) data: usize,
    /// Element segments.
    pub(crate) elements: usize,
    /// A whole section at the end.
    pub(crate) last: Vec<u8>,
}

/// The answer of [`Module`].
const ANSWER: &[u8] = b"{\"decision\":\"allow\"}";

impl Module {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut types = vec![
            vec![0x60, 1, I32, 1, I32],       // alloc
            vec![0x60, 2, I32, I32, 0],       // dealloc
            vec![0x60, 2, I32, I32, 1, 0x7e], // handler
            vec![0x60, 0, 0],                 // the further functions
        ];
        types.extend(self.types.iter().cloned());
        let mut functions = vec![vec![0], vec![1], vec![2]];
        functions.extend(self.functions.iter().map(|_| vec![3]));
        let mut exports = vec![
            export("memory", 2, 0),
            export("alloc", 0, 0),
            export("dealloc", 0, 1),
            export("on_request_headers", 0, 2),
        ];
        exports.extend(self.exports.iter().cloned());
        let mut handler = self.handler.clone();
        handler.push(0x42); // i64.const 8 << 32 | length
        handler.extend(sleb((8 << 32) | i64::try_from(ANSWER.len()).unwrap()));
        let mut bodies = vec![
            body(&[], &[0x41, 0x80, 0x80, 0x04]), // i32.const 65536
            body(&[], &[]),
            body(&self.locals, &handler),
        ];
        bodies.extend(self.functions.iter().cloned());
        let mut data = vec![[&[0, 0x41, 8, 0x0b][..], &sized(ANSWER)].concat()];
        data.extend(vec![vec![0, 0x41, 0, 0x0b, 0]; self.data]);

        let mut out = HEADER.to_vec();
        out.extend(section(1, &vector(&types)));
        out.extend(section(3, &vector(&functions)));
        if self.elements > 0 {
            out.extend(section(4, &[1, 0x70, 0, 1])); // one funcref table
        }
        out.extend(section(5, &[1, 0, 18]));
        out.extend(section(7, &vector(&exports)));
        if self.elements > 0 {
            out.extend(section(
                9,
                &vector(&vec![vec![0, 0x41, 0, 0x0b, 0]; self.elements]),
            ));
        }
        out.extend(section(10, &vector(&bodies)));
        out.extend(section(11, &vector(&data)));
        out.extend_from_slice(&self.last);
        out
    }
}

pub(crate) fn export(name: &str, kind: u8, index: usize) -> Vec<u8> {
    let mut out = sized(name.as_bytes());
    out.push(kind);
    out.extend(leb(index));
    out
}

fn sleb(mut number: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        let done = (number == 0 && low & 0x40 == 0) || (number == -1 && low & 0x40 != 0);
        bytes.push(if done { low } else { low | 0x80 });
        if done {
            return bytes;
        }
    }
}

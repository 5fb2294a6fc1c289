//! Searches a text for many secrets at once: it is read once, however many there are.
//!
//! A trie with a link from each node to the longest other beginning that its
//! text ends with (Aho and Corasick). The crate of that name lists at each
//! node all patterns that end there, which is quadratic for secrets that begin
//! alike, and does not tell how much of a secret was read at a text's end.

use std::collections::VecDeque;

/// No node, and no secret.
const NONE: u32 = u32::MAX;

/// The secrets that were given to it.
#[derive(Debug)]
pub(super) struct Finder {
    /// All but the root.
    nodes: Vec<Node>,
    /// The root's nodes by their byte.
    first: Box<[u32; 256]>,
}

#[derive(Debug)]
struct Node {
    byte: u8,
    /// Bytes from the root to here.
    depth: u32,
    child: u32,
    sibling: u32,
    /// The node of the longest beginning that this one's text ends with.
    link: u32,
    /// The longest secret that ends here.
    ends: u32,
    /// A secret that goes through here.
    through: u32,
}

/// A secret by its number, and where in the text it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) secret: usize,
    pub(super) end: usize,
}

/// How much of a secret's beginning a text ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    pub(super) secret: usize,
    pub(super) length: usize,
}

impl Finder {
    /// Takes secrets with their numbers; their text may be read backwards.
    pub(super) fn new<Bytes: IntoIterator<Item = u8>>(
        secrets: impl IntoIterator<Item = (usize, Bytes)>,
    ) -> Self {
        let mut finder = Self {
            nodes: Vec::new(),
            first: Box::new([NONE; 256]),
        };
        for (number, bytes) in secrets {
            let number = u32::try_from(number).unwrap_or(NONE);
            let mut at = NONE;
            for byte in bytes {
                at = finder
                    .step(at, byte)
                    .unwrap_or_else(|| finder.add(at, byte, number));
            }
            if let Some(node) = finder.nodes.get_mut(at as usize)
                && node.ends == NONE
            {
                node.ends = number;
            }
        }
        finder.link();
        finder
    }

    /// Bytes of memory that it takes.
    pub(super) fn size_bytes(&self) -> usize {
        self.nodes.len() * size_of::<Node>() + size_of::<[u32; 256]>()
    }

    /// From a node, or from the root, to the next.
    fn step(&self, at: u32, byte: u8) -> Option<u32> {
        let Some(node) = self.nodes.get(at as usize) else {
            let next = self.first[usize::from(byte)];
            return (next != NONE).then_some(next);
        };
        let mut next = node.child;
        while let Some(child) = self.nodes.get(next as usize) {
            if child.byte == byte {
                return Some(next);
            }
            next = child.sibling;
        }
        None
    }

    fn add(&mut self, at: u32, byte: u8, number: u32) -> u32 {
        let Ok(new) = u32::try_from(self.nodes.len()) else {
            return at;
        };
        let (depth, sibling) = match self.nodes.get_mut(at as usize) {
            None => {
                self.first[usize::from(byte)] = new;
                (1, NONE)
            }
            Some(node) => (node.depth + 1, std::mem::replace(&mut node.child, new)),
        };
        self.nodes.push(Node {
            byte,
            depth,
            child: NONE,
            sibling,
            link: NONE,
            ends: NONE,
            through: number,
        });
        new
    }

    /// Sets the links, level by level: those of shorter texts are there then.
    fn link(&mut self) {
        let begun = self.first.iter().filter(|node| **node != NONE);
        let mut queue: VecDeque<u32> = begun.copied().collect();
        while let Some(at) = queue.pop_front() {
            let (link, mut next) = {
                let node = &self.nodes[at as usize];
                (node.link, node.child)
            };
            if let Some(ends) = self.nodes.get(link as usize).map(|node| node.ends)
                && self.nodes[at as usize].ends == NONE
            {
                self.nodes[at as usize].ends = ends;
            }
            while next != NONE {
                let byte = self.nodes[next as usize].byte;
                self.nodes[next as usize].link = self.go(link, byte);
                queue.push_back(next);
                next = self.nodes[next as usize].sibling;
            }
        }
    }

    /// The longest beginning that the text of a node, or what it ends with,
    /// makes with one byte more.
    fn go(&self, mut at: u32, byte: u8) -> u32 {
        loop {
            if let Some(next) = self.step(at, byte) {
                return next;
            }
            let Some(node) = self.nodes.get(at as usize) else {
                return NONE;
            };
            at = node.link;
        }
    }

    /// Reads a text, hands over the longest secret that ends at each byte, and
    /// back what of a secret the text ends with.
    pub(super) fn read(
        &self,
        text: impl IntoIterator<Item = u8>,
        mut hit: impl FnMut(Hit),
    ) -> Option<Rest> {
        let mut at = NONE;
        for (index, byte) in text.into_iter().enumerate() {
            at = self.go(at, byte);
            if let Some(node) = self.nodes.get(at as usize)
                && node.ends != NONE
            {
                hit(Hit {
                    secret: node.ends as usize,
                    end: index + 1,
                });
            }
        }
        self.nodes.get(at as usize).map(|node| Rest {
            secret: node.through as usize,
            length: node.depth as usize,
        })
    }
}

//! Estimates the memory that compiling one function takes, from its operators.
//!
//! Compilers take far more than code is long: a `table.init` of ten bytes takes
//! 40 KiB. The figures are measured with the engine that is built in, one kind
//! of operator at a time, with and without counting instructions, and rounded
//! up. What does not grow with the operators alone is reckoned as the compiler's
//! front end keeps it: for each of its variables (locals, and values that come
//! out of a block) a table of blocks; and for each use of a local a value in
//! each block since the last one.

use wasmparser::{BlockType, Operator};

/// Of `table.init`, in bytes; the other figures are in the same unit.
const TABLE_INIT: u64 = 44 << 10;
const TABLE_COPY: u64 = 38 << 10;
const TABLE_GROW: u64 = 24 << 10;
const TABLE_FILL: u64 = 10 << 10;
const TABLE_GET: u64 = 12 << 10;
const TABLE_SET: u64 = 6 << 10;
const CALL_INDIRECT: u64 = 18 << 10;
const CALL: u64 = 4 << 10;
const LOOP: u64 = 26 << 10;
const BLOCK: u64 = 1 << 10;
const BRANCH: u64 = 5 << 10;
const RETURN: u64 = 6 << 10;
const BULK_MEMORY: u64 = 7 << 10;
const DIVISION: u64 = 4 << 10;
/// Of an access that the engine has to check.
const FAR_ACCESS: u64 = 6 << 10;
const GLOBAL: u64 = 2500;
const REFERENCE: u64 = 5 << 10;
const LOCAL_SET: u64 = 300;
const LITTLE: u64 = 100;
/// Of whole numbers.
const INTEGER: u64 = 600;
/// Of all others: memory, floats and vectors.
const OTHER: u64 = 1900;
/// Of one argument or result of a call, and of one value of a block.
const VALUE: u64 = 600;
/// Of one target of a `br_table`.
const TARGET: u64 = 800;
/// Of one value that one branch carries to its target.
const CARRIED: u64 = 32;
/// Of one variable in one block.
const CELL: u64 = 6;
/// Of one local that is used, in each block since it was used last.
const CROSSED: u64 = 64;

/// Up to here an access meets the pages that the engine keeps free behind a
/// memory, and is not checked.
const NEAR: u64 = 32 << 20;

/// How many values go into a type, and out of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Arity {
    pub(super) takes: u64,
    pub(super) gives: u64,
}

/// What is known of a module's types where its functions are read.
pub(super) trait Arities {
    fn of_type(&self, index: u32) -> Arity;
    fn of_function(&self, index: u32) -> Arity;
}

/// The reckoning for one function, operator by operator.
pub(super) struct Cost<'a, A> {
    arities: &'a A,
    bytes: u64,
    /// Blocks of the compiler so far.
    blocks: u64,
    /// For each local the blocks there were when it was used last.
    used: Vec<u64>,
    /// What a branch to each open block carries, and what leaves its end.
    open: Vec<(u64, u64)>,
}

impl<'a, A: Arities> Cost<'a, A> {
    /// Of a function of this type with so many locals besides.
    pub(super) fn new(arities: &'a A, ty: Arity, locals: u64) -> Self {
        let locals = usize::try_from(ty.takes.saturating_add(locals)).unwrap_or(0);
        Self {
            arities,
            bytes: 0,
            blocks: 1,
            used: vec![1; locals],
            open: vec![(ty.gives, 0)],
        }
    }

    /// All of it, in bytes.
    pub(super) fn total(&self) -> u64 {
        let tables: u64 = self.used.iter().map(|blocks| blocks * CELL).sum();
        self.bytes.saturating_add(tables)
    }

    /// Adds one operator, which begins with this byte.
    pub(super) fn operator(&mut self, operator: &Operator<'_>, opcode: u8) {
        let bytes = match operator {
            Operator::Block { blockty } => {
                self.blocks += 1;
                self.begin(*blockty, false)
            }
            Operator::Loop { blockty } => {
                // With a check of the deadline.
                self.blocks += 4;
                LOOP + self.begin(*blockty, true)
            }
            Operator::If { blockty } => {
                self.blocks += 2;
                BRANCH + self.begin(*blockty, false)
            }
            Operator::Else => {
                self.blocks += 1;
                BRANCH
            }
            Operator::End => self.end(),
            Operator::Br { relative_depth } => BRANCH + self.branch(*relative_depth),
            Operator::BrIf { relative_depth } => {
                self.blocks += 1;
                BRANCH + self.branch(*relative_depth)
            }
            Operator::BrTable { targets } => {
                let targets = targets.targets().chain([Ok(targets.default())]).flatten();
                targets.fold(BRANCH, |sum, depth| {
                    self.blocks += 1;
                    sum.saturating_add(TARGET + self.branch(depth))
                })
            }
            Operator::Return => RETURN + self.open.first().map_or(0, |open| open.0 * CARRIED),
            Operator::Call { function_index } => {
                CALL + values(self.arities.of_function(*function_index))
            }
            Operator::CallIndirect { type_index, .. } => {
                self.blocks += 2;
                CALL_INDIRECT + values(self.arities.of_type(*type_index))
            }
            Operator::LocalGet { local_index } => LITTLE + self.use_local(*local_index),
            Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
                if let Some(used) = self.used.get_mut(*local_index as usize) {
                    *used = self.blocks;
                }
                LOCAL_SET
            }
            other => self.plain(other, opcode),
        };
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Of an operator that neither branches nor touches a local.
    fn plain(&mut self, operator: &Operator<'_>, opcode: u8) -> u64 {
        match operator {
            Operator::TableInit { .. } => TABLE_INIT,
            Operator::TableCopy { .. } => TABLE_COPY,
            Operator::TableGrow { .. } => TABLE_GROW,
            Operator::TableFill { .. } => TABLE_FILL,
            Operator::TableGet { .. } => {
                self.blocks += 2;
                TABLE_GET
            }
            Operator::TableSet { .. } => TABLE_SET,
            Operator::MemoryInit { .. }
            | Operator::MemoryCopy { .. }
            | Operator::MemoryFill { .. }
            | Operator::MemoryGrow { .. } => BULK_MEMORY,
            Operator::GlobalGet { .. } | Operator::GlobalSet { .. } => GLOBAL,
            Operator::RefFunc { .. } | Operator::ElemDrop { .. } => REFERENCE,
            Operator::Nop
            | Operator::Drop
            | Operator::I32Const { .. }
            | Operator::I64Const { .. } => LITTLE,
            other if offset(other).is_some_and(|offset| offset > NEAR) => FAR_ACCESS,
            _ => match opcode {
                // Division and remainder, of 32 and of 64 bits.
                0x6d..=0x70 | 0x7f..=0x82 => DIVISION,
                // Comparing, reckoning and converting.
                0x45..=0x8a | 0xa7..=0xc4 => INTEGER,
                _ => OTHER,
            },
        }
    }

    fn begin(&mut self, ty: BlockType, is_loop: bool) -> u64 {
        let arity = match ty {
            BlockType::Empty => Arity::default(),
            BlockType::Type(_) => Arity { takes: 0, gives: 1 },
            BlockType::FuncType(index) => self.arities.of_type(index),
        };
        self.open.push(if is_loop {
            (arity.takes, arity.gives)
        } else {
            (arity.gives, arity.gives)
        });
        let entered = if is_loop {
            arity.takes * self.blocks * CELL
        } else {
            0
        };
        BLOCK + values(arity) + entered
    }

    fn end(&mut self) -> u64 {
        let (_, gives) = self.open.pop().unwrap_or_default();
        gives.saturating_mul(self.blocks * CELL)
    }

    fn branch(&self, depth: u32) -> u64 {
        let at = self.open.len().checked_sub(1 + depth as usize);
        let open = at.and_then(|at| self.open.get(at));
        open.map_or(0, |(carried, _)| carried * CARRIED)
    }

    fn use_local(&mut self, index: u32) -> u64 {
        let Some(used) = self.used.get_mut(index as usize) else {
            return 0;
        };
        let crossed = self.blocks - *used;
        *used = self.blocks;
        crossed * CROSSED
    }
}

const fn values(arity: Arity) -> u64 {
    (arity.takes + arity.gives) * VALUE
}

/// How far from its address an operator reads or writes memory.
const fn offset(operator: &Operator<'_>) -> Option<u64> {
    macro_rules! of_accesses {
        ($($access:ident)*) => {
            match operator {
                $(Operator::$access { memarg, .. } => Some(memarg.offset),)*
                _ => None,
            }
        };
    }
    of_accesses!(
        I32Load I64Load F32Load F64Load I32Load8S I32Load8U I32Load16S I32Load16U
        I64Load8S I64Load8U I64Load16S I64Load16U I64Load32S I64Load32U I32Store
        I64Store F32Store F64Store I32Store8 I32Store16 I64Store8 I64Store16
        I64Store32 V128Load V128Load8x8S V128Load8x8U V128Load16x4S V128Load16x4U
        V128Load32x2S V128Load32x2U V128Load8Splat V128Load16Splat V128Load32Splat
        V128Load64Splat V128Load32Zero V128Load64Zero V128Store V128Load8Lane
        V128Load16Lane V128Load32Lane V128Load64Lane V128Store8Lane V128Store16Lane
        V128Store32Lane V128Store64Lane
    )
}

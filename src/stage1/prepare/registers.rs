//! The registers of a stopped process, as the kernel shows them to whoever traces it, and what it takes in them and on
//! the stack to execute a program. Numbers in bytes alone: knows no process.

use crate::bytes::little_endian;
use crate::sys::ptrace::MOST_REGISTERS;

/// What lies below a stack pointer and is in use all the same: the red zone of the x86_64 psABI, the largest of all.
const RED_ZONE: u64 = 128;
/// The bytes of the stack that are lent.
pub const LENT: usize = 512;

/// Where the registers that matter are among all, counted in words.
#[derive(Debug)]
pub struct Layout {
    /// Of all registers, in bytes: that tells which layout it is.
    length: usize,
    /// The bytes of a register, and of a pointer.
    word: usize,
    /// The first three arguments of a system call.
    arguments: [usize; 3],
    /// The number of the system call, where that is one of the registers.
    number: Option<usize>,
    /// What a system call gives.
    result: usize,
    /// The program counter.
    counter: usize,
    /// The stack pointer.
    stack: usize,
    /// The bytes of the instruction that makes a system call.
    instruction: u64,
    /// The register whose sixth bit says that an instruction of that kind has two bytes: Thumb.
    thumb: Option<usize>,
    /// The register that must tell the kernel that a call is one that goes on (restart_syscall).
    resumption: Option<usize>,
    /// The number of the call that executes a program: <asm/unistd.h>.
    call: u16,
}

/// struct user_regs_struct in arch/x86/include/asm/user_64.h: `orig_rax` is the number.
#[cfg(any(test, target_arch = "x86_64"))]
const X86_64: Layout = Layout {
    length: 216,
    word: 8,
    arguments: [14, 13, 12],
    number: Some(15),
    result: 10,
    counter: 16,
    stack: 19,
    instruction: 2,
    thumb: None,
    resumption: None,
    call: 59,
};

/// struct user_pt_regs in arch/arm64/include/uapi/asm/ptrace.h.
#[cfg(any(test, target_arch = "aarch64"))]
const AARCH64: Layout = Layout {
    length: 272,
    word: 8,
    arguments: [0, 1, 2],
    number: None,
    result: 0,
    counter: 32,
    stack: 31,
    instruction: 4,
    thumb: None,
    resumption: None,
    call: 221,
};

/// struct pt_regs in arch/arm/include/uapi/asm/ptrace.h. On a kernel of 32 bits a call that goes on after an
/// interruption keeps its own number in r7.
#[cfg(any(test, target_arch = "aarch64", target_arch = "arm"))]
const ARM: Layout = Layout {
    length: 72,
    word: 4,
    arguments: [0, 1, 2],
    number: None,
    result: 0,
    counter: 15,
    stack: 13,
    instruction: 4,
    thumb: Some(16),
    resumption: Some(7),
    call: 11,
};

/// Those of the programs that can be traced from here.
#[cfg(all(not(test), target_arch = "x86_64"))]
const LAYOUTS: &[Layout] = &[X86_64];
#[cfg(all(not(test), target_arch = "aarch64"))]
const LAYOUTS: &[Layout] = &[AARCH64, ARM];
#[cfg(all(not(test), target_arch = "arm"))]
const LAYOUTS: &[Layout] = &[ARM];
#[cfg(test)]
const LAYOUTS: &[Layout] = &[X86_64, AARCH64, ARM];

/// The registers of a process that stands at the beginning of a system call.
#[derive(Clone)]
pub struct Registers {
    bytes: [u8; MOST_REGISTERS],
    layout: &'static Layout,
}

impl Registers {
    /// From what the kernel shows, and how many bytes that is; nothing when no layout is so long.
    pub fn of(bytes: [u8; MOST_REGISTERS], length: usize) -> Option<Self> {
        let layout = LAYOUTS.iter().find(|layout| layout.length == length)?;
        Some(Self { bytes, layout })
    }

    /// As the kernel takes them.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.layout.length).unwrap_or_default()
    }

    fn get(&self, index: usize) -> u64 {
        match self.layout.word {
            4 => little_endian::<4>(&self.bytes, index * 4),
            _ => little_endian::<8>(&self.bytes, index * 8),
        }
    }

    fn set(&mut self, index: usize, value: u64) {
        let word = self.layout.word;
        let place = self.bytes.get_mut(index * word..(index + 1) * word).unwrap_or_default();
        for (to, from) in place.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    /// The stack pointer.
    pub fn stack(&self) -> u64 {
        self.get(self.layout.stack)
    }

    /// Where the lent part of the stack begins, in an area of memory that begins at `start`: below all that is in use,
    /// unless the area ends there.
    pub fn lent_at(&self, start: u64) -> u64 {
        (self.stack().saturating_sub(RED_ZONE + LENT as u64) & !15).max(start)
    }

    /// The number of the call that executes a program, where it is not one of the registers.
    pub fn call(&self) -> Option<i32> {
        match self.layout.number {
            Some(_) => None,
            None => Some(self.layout.call.into()),
        }
    }

    /// True when the kernel must be told that a call goes on, should it be made again.
    pub fn tells_resumption(&self) -> bool {
        self.layout.resumption.is_some()
    }

    /// The same with the call in it that executes the program whose path lies in [`Registers::lent`] at `place`.
    pub fn executing(&self, place: u64) -> Self {
        let mut changed = self.clone();
        let layout = self.layout;
        let word = layout.word as u64;
        let arguments = [place + 2 * word, place, place + word];
        for (index, value) in layout.arguments.into_iter().zip(arguments) {
            changed.set(index, value);
        }
        if let Some(number) = layout.number {
            changed.set(number, layout.call.into());
        }
        changed
    }

    /// The same, to make the call anew at whose beginning the process stood, when it stands at the end of another one.
    /// Where [`Registers::call`] gives one, its number must be set to −1 afterwards, so that the kernel does not take
    /// what these have for an interrupted call. `resumes` when that call was one that goes on.
    pub fn again(&self, resumes: bool) -> Self {
        let mut changed = self.clone();
        let layout = self.layout;
        let is_thumb = layout.thumb.is_some_and(|index| self.get(index) & 0x20 != 0);
        let instruction = if is_thumb { 2 } else { layout.instruction };
        changed.set(layout.counter, self.get(layout.counter).wrapping_sub(instruction));
        if let Some(number) = layout.number {
            changed.set(layout.result, self.get(number));
            changed.set(number, u64::MAX);
        }
        if let (true, Some(index)) = (resumes, layout.resumption) {
            changed.set(index, 0);
        }
        changed
    }

    /// The errno of a call that has failed, at its end.
    pub fn errno(&self) -> i32 {
        // Between −4095 and −1, in a word of either size.
        (self.get(self.layout.result) as i32).wrapping_neg()
    }

    /// What comes onto the lent part of the stack at `place`: the pointers to the arguments, of which there is one, the
    /// null behind them, which is the empty environment, too, and the path.
    pub fn lent(&self, place: u64, path: &str) -> [u8; LENT] {
        let word = self.layout.word;
        let mut bytes = [0; LENT];
        let pointer = (place + 2 * word as u64).to_le_bytes();
        let content = pointer.into_iter().take(word).chain(core::iter::repeat_n(0, word));
        // The last byte stays the NUL of a path that is too long.
        for (to, from) in bytes.iter_mut().take(LENT - 1).zip(content.chain(path.bytes())) {
            *to = from;
        }
        bytes
    }
}

/// The beginning of an area of memory, when it holds `address` and can be written to, from a line of /proc/PID/maps:
/// two addresses with a hyphen between, and what may be done (proc(5)).
pub fn start_of_area(line: &str, address: u64) -> Option<u64> {
    let mut words = line.split(' ');
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let is_writable = words.next()?.starts_with("rw");
    (is_writable && (start..end).contains(&address)).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Registers of which each has a value of its own.
    fn of(layout: &'static Layout) -> Registers {
        let mut registers = Registers { bytes: [0; MOST_REGISTERS], layout };
        for index in 0..layout.length / layout.word {
            registers.set(index, 0x1000 + index as u64);
        }
        registers
    }

    /// The registers that differ, with what they are.
    fn changes(before: &Registers, after: &Registers) -> Vec<(usize, u64)> {
        let count = before.layout.length / before.layout.word;
        (0..count)
            .filter(|index| before.get(*index) != after.get(*index))
            .map(|index| (index, after.get(index)))
            .collect()
    }

    #[test]
    fn the_length_tells_the_layout() {
        for (length, words) in [(216, 27), (272, 34), (72, 18)] {
            let registers = Registers::of([7; MOST_REGISTERS], length).unwrap();
            assert_eq!(registers.bytes().len() / registers.layout.word, words);
        }
        assert!(Registers::of([7; MOST_REGISTERS], 68).is_none(), "i386");
    }

    #[test]
    fn three_arguments_and_the_number_change_for_an_execution_and_nothing_else() {
        for (layout, wanted, call) in [
            (&X86_64, vec![(12, 0x8008), (13, 0x8000), (14, 0x8010), (15, 59)], None),
            (&AARCH64, vec![(0, 0x8010), (1, 0x8000), (2, 0x8008)], Some(221)),
            (&ARM, vec![(0, 0x8008), (1, 0x8000), (2, 0x8004)], Some(11)),
        ] {
            let registers = of(layout);
            let executing = registers.executing(0x8000);
            assert_eq!(changes(&registers, &executing), wanted);
            assert_eq!(executing.call(), call);
        }
    }

    #[test]
    fn a_call_is_made_again_from_its_own_instruction() {
        let registers = of(&X86_64);
        let wanted = [(10, 0x100f), (15, u64::MAX), (16, 0x100e)];
        assert_eq!(changes(&registers, &registers.again(true)), wanted);
        assert_eq!(changes(&of(&AARCH64), &of(&AARCH64).again(true)), [(32, 0x101c)]);
        // Its status register is 0x1010 here: ARM.
        let mut registers = of(&ARM);
        assert_eq!(changes(&registers, &registers.again(false)), [(15, 0x100b)]);
        assert_eq!(changes(&registers, &registers.again(true)), [(7, 0), (15, 0x100b)]);
        registers.set(16, 0x1030);
        assert_eq!(changes(&registers, &registers.again(false)), [(15, 0x100d)], "Thumb");
    }

    #[test]
    fn what_a_failed_call_gave_is_an_errno() {
        for layout in LAYOUTS {
            let mut registers = of(layout);
            registers.set(layout.result, (-2i64) as u64);
            assert_eq!(registers.errno(), 2);
        }
    }

    #[test]
    fn the_lent_stack_has_one_argument_and_no_environment() {
        let lent = of(&X86_64).lent(0x7ffc_0000_1230, "/run/x/takeover");
        let mut wanted = vec![0x40, 0x12, 0, 0, 0xfc, 0x7f, 0, 0];
        wanted.extend([0; 8]);
        wanted.extend(b"/run/x/takeover\0");
        assert_eq!(lent[..32], wanted);
        let lent = of(&ARM).lent(0xbeef_0010, "/takeover");
        assert_eq!(lent[..18], *b"\x18\0\xef\xbe\0\0\0\0/takeover\0");
        assert_eq!(lent[18..], [0; LENT - 18]);
        assert_eq!(of(&ARM).lent(0, &"x".repeat(600))[LENT - 2..], *b"x\0");
    }

    #[test]
    fn the_lent_stack_lies_below_what_is_in_use_and_in_its_area() {
        let mut registers = of(&X86_64);
        registers.set(19, 0x7fff_1238);
        assert_eq!(registers.stack(), 0x7fff_1238);
        assert_eq!(registers.lent_at(0), 0x7fff_0fb0);
        assert_eq!(registers.lent_at(0x7fff_1000), 0x7fff_1000);
        registers.set(19, 8);
        assert_eq!(registers.lent_at(0), 0);
    }

    #[test]
    fn the_area_of_an_address_can_be_written_to() {
        let line = "7ffc1000-7ffc3000 rw-p 00000000 00:00 0    [stack]";
        assert_eq!(start_of_area(line, 0x7ffc_1000), Some(0x7ffc_1000));
        assert_eq!(start_of_area(line, 0x7ffc_2fff), Some(0x7ffc_1000));
        assert_eq!(start_of_area(line, 0x7ffc_3000), None);
        assert_eq!(start_of_area(&line.replace("rw-p", "r--p"), 0x7ffc_1000), None);
        for odd in ["", "7ffc1000", "x-y rw-p", "7ffc1000-7ffc3000"] {
            assert_eq!(start_of_area(odd, 0x7ffc_1000), None, "{odd}");
        }
    }
}

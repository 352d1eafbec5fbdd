/* qemu's mps2-an386 as a motor board: UART0 is the host's cable; UART1 carries the plant, sensors in and motors out.
 * Addresses and interrupt numbers: Arm's application note AN386, the CMSDK's UART, timer and watchdog. */
#include "board.h"

#include <string.h>

struct uart {
    volatile uint32_t data, state, control, interrupt, divider;
};
struct timer {
    volatile uint32_t control, value, reload;
};

struct systick {
    volatile uint32_t control, reload, value;
};
struct watchdog {
    volatile uint32_t reload, value, control, clear;
};
/* Survives a reset. The seed is put there from outside (mps2.ld), for there is no source of randomness here; a board has one. */
struct boot {
    uint32_t seed, count;
};

#define HOST ((struct uart *)0x40004000)
#define PLANT ((struct uart *)0x40005000)
#define TIMER ((struct timer *)0x40000000)
#define SYSTICK ((struct systick *)0xE000E010)
#define WATCHDOG ((struct watchdog *)0x40008000)
#define NVIC_ENABLE (*(volatile uint32_t *)0xE000E100)
#define HOST_RX_IRQ (1u << 0)
#define PLANT_RX_IRQ (1u << 2)
#define TX_FULL 1u
#define RX_FULL 2u
#define RX_INTERRUPT 2u
#define BUFFER 1024u /* a power of two */
#define PATIENCE 1000u /* looks at a full transmitter, some 50 us */
#define TICKS_PER_US 25u /* the board's 25 MHz */
/* Resets after twice this long without a tick. Long, because the emulated clock goes on while the machine runs something else. */
#define WATCHDOG_US 500000u

/* Plant channel, both ways: 0xA5, then the payload and its CRC-32 (OPEN_SEED). Fixed sizes, so no framing beyond the mark. */
#define MARK 0xA5u
struct __attribute__((packed)) motors {
    float command[JOINTS];
    uint8_t driving;
    uint32_t now_us;
};

struct hal {
    uint32_t last_value, fraction, now_us, tick;
    struct raw_sensors sensors;
    uint8_t incoming[sizeof(struct raw_sensors) + CRC_BYTES];
    uint32_t filled;
    uint8_t in_frame;
};

/* Filled by the interrupt, emptied by the tick: one writer and one reader, so two counters are all the locking there is. */
struct inbox {
    uint8_t bytes[BUFFER];
    volatile uint32_t in, out;
};

static struct inbox HOST_INBOX, PLANT_INBOX;
static struct board BOARD;
static struct hal HAL;
static volatile struct boot BOOT __attribute__((section(".kept")));

/* The timer counts down and wraps at 32 bits; called often enough (171 s), no count is lost. */
uint32_t hal_time_us(struct hal *hal) {
    uint32_t value = TIMER->value;
    hal->fraction += hal->last_value - value;
    hal->last_value = value;
    hal->now_us += hal->fraction / TICKS_PER_US;
    hal->fraction %= TICKS_PER_US;
    return hal->now_us;
}

static void take_in(struct uart *uart, struct inbox *inbox) {
    uart->interrupt = RX_INTERRUPT;
    while (uart->state & RX_FULL) {
        uint8_t byte = (uint8_t)uart->data;
        if (inbox->in - inbox->out < BUFFER) inbox->bytes[inbox->in++ % BUFFER] = byte;
    }
}

void host_rx_handler(void) { take_in(HOST, &HOST_INBOX); }

void plant_rx_handler(void) { take_in(PLANT, &PLANT_INBOX); }

static uint32_t take_out(struct inbox *inbox, uint8_t *out, uint32_t capacity) {
    uint32_t length = 0;
    while (length < capacity && inbox->out != inbox->in) out[length++] = inbox->bytes[inbox->out++ % BUFFER];
    return length;
}

uint32_t hal_serial_read(struct hal *hal, uint8_t *out, uint32_t capacity) {
    (void)hal;
    return take_out(&HOST_INBOX, out, capacity);
}

/* A reader that does not read costs one wait, not one per byte: the rest of the frame is lost, and its CRC will tell. */
static void put(struct uart *uart, const uint8_t *data, uint32_t length) {
    for (uint32_t i = 0, patience = PATIENCE; i < length; i++) {
        while (uart->state & TX_FULL)
            if (patience-- == 0) return;
        uart->data = data[i];
    }
}

void hal_serial_write(struct hal *hal, const uint8_t *data, uint32_t length) {
    (void)hal;
    put(HOST, data, length);
}

static void take_plant_byte(struct hal *hal, uint8_t byte) {
    if (!hal->in_frame) {
        hal->in_frame = byte == MARK;
        hal->filled = 0;
        return;
    }
    hal->incoming[hal->filled++] = byte;
    if (hal->filled < sizeof hal->incoming) return;
    hal->in_frame = 0;
    uint32_t sent;
    memcpy(&sent, hal->incoming + sizeof(struct raw_sensors), CRC_BYTES);
    if (crc32(OPEN_SEED, hal->incoming, sizeof(struct raw_sensors)) == sent) memcpy(&hal->sensors, hal->incoming, sizeof(struct raw_sensors));
}

void hal_sensors_read(struct hal *hal, struct raw_sensors *out) {
    uint8_t byte;
    while (take_out(&PLANT_INBOX, &byte, 1)) take_plant_byte(hal, byte);
    *out = hal->sensors;
}

void hal_motors_write(struct hal *hal, const float command[JOINTS], uint8_t driving) {
    struct motors motors = {.driving = driving, .now_us = hal_time_us(hal)};
    memcpy(motors.command, command, sizeof motors.command);
    uint8_t frame[1 + sizeof motors + CRC_BYTES];
    uint32_t crc = crc32(OPEN_SEED, (const uint8_t *)&motors, sizeof motors);
    frame[0] = MARK;
    memcpy(frame + 1, &motors, sizeof motors);
    memcpy(frame + 1 + sizeof motors, &crc, CRC_BYTES);
    put(PLANT, frame, sizeof frame);
}

static volatile uint32_t TICKS;

void systick_handler(void) { TICKS++; }

/* Sleeps, so that an emulated processor leaves its machine room for the UARTs. Missed ticks are dropped, not made up. */
void hal_idle(struct hal *hal) {
    for (;;) {
        __asm volatile("cpsid i" ::: "memory"); /* a tick between the look and the sleep wakes the sleep */
        if (TICKS != hal->tick) break;
        __asm volatile("wfi\n cpsie i" ::: "memory");
    }
    hal->tick = TICKS;
    __asm volatile("cpsie i" ::: "memory");
    WATCHDOG->clear = 1;
}

static void open_uart(struct uart *uart) {
    uart->divider = 16;
    uart->control = 1u | 2u | 8u; /* transmit, receive, interrupt on receive */
}

int main(void) {
    open_uart(HOST);
    open_uart(PLANT);
    NVIC_ENABLE = HOST_RX_IRQ | PLANT_RX_IRQ;
    TIMER->reload = 0xFFFFFFFFu;
    TIMER->value = 0xFFFFFFFFu;
    TIMER->control = 1;
    HAL.last_value = TIMER->value;
    SYSTICK->reload = TICKS_PER_US * 1000000u / BOARD_HZ - 1u;
    SYSTICK->value = 0;
    SYSTICK->control = 7;
    for (int i = 0; i < 3; i++) HAL.sensors.gyro[i] = HAL.sensors.accel[i] = NO_READING_I16;
    BOOT.count++;
    board_start(&BOARD, BOOT.seed + BOOT.count, hal_time_us(&HAL));
    WATCHDOG->reload = WATCHDOG_US * TICKS_PER_US;
    WATCHDOG->control = 3; /* the first time it warns, the second it resets */
    for (;;) {
        hal_idle(&HAL);
        board_tick(&BOARD, &HAL);
    }
}

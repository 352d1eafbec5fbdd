/* The firmware as a shared library: one call is one tick, and the caller plays UART, sensors, motors and clock. */
#include "board.h"

#include <string.h>

#define EXPORT __attribute__((visibility("default")))

struct hal {
    uint32_t now_us;
    const uint8_t *rx;
    uint32_t rx_length, rx_at;
    const struct raw_sensors *sensors;
    uint8_t *tx;
    uint32_t tx_capacity, tx_length;
    float *command;
};

uint32_t hal_time_us(struct hal *hal) { return hal->now_us; }

uint32_t hal_serial_read(struct hal *hal, uint8_t *out, uint32_t capacity) {
    uint32_t left = hal->rx_length - hal->rx_at, length = left < capacity ? left : capacity;
    if (length > 0) memcpy(out, hal->rx + hal->rx_at, length);
    hal->rx_at += length;
    return length;
}

void hal_serial_write(struct hal *hal, const uint8_t *data, uint32_t length) {
    if (length > hal->tx_capacity - hal->tx_length) return;
    memcpy(hal->tx + hal->tx_length, data, length);
    hal->tx_length += length;
}

void hal_sensors_read(struct hal *hal, struct raw_sensors *out) { *out = *hal->sensors; }

void hal_motors_write(struct hal *hal, const float command[JOINTS], uint8_t driving) {
    (void)driving;
    memcpy(hal->command, command, sizeof(float) * JOINTS);
}

void hal_idle(struct hal *hal) { (void)hal; }

EXPORT uint32_t host_board_size(void) { return sizeof(struct board); }

EXPORT void host_board_start(void *board, uint32_t session, uint32_t now_us) { board_start(board, session, now_us); }

/* Returns the bytes sent. Bytes of `rx` beyond 1 KiB per tick are lost, as in a UART's buffer. */
EXPORT uint32_t host_board_tick(void *board, uint32_t now_us, const uint8_t *rx, uint32_t rx_length, const struct raw_sensors *sensors,
                                uint8_t *tx, uint32_t tx_capacity, float *command, uint8_t *mode) {
    struct hal hal = {now_us, rx, rx_length, 0, sensors, tx, tx_capacity, 0, command};
    board_tick(board, &hal);
    *mode = ((struct board *)board)->mode;
    return hal.tx_length;
}

/* For tests: what the decoder makes of a stream, as [u16 length, header, payload]..., and its seven error counts. */
EXPORT uint32_t host_deframe(const uint8_t *stream, uint32_t length, uint8_t *out, uint32_t capacity, uint32_t errors[7]) {
    struct deframer deframer;
    struct packet packet;
    uint32_t at = 0;
    memset(&deframer, 0, sizeof deframer);
    for (uint32_t i = 0; i < length; i++) {
        if (!deframe(&deframer, stream[i], &packet)) continue;
        uint16_t bytes = (uint16_t)(HEADER_BYTES + packet.payload_bytes);
        if (at + 2u + bytes > capacity) break;
        memcpy(out + at, &bytes, 2);
        memcpy(out + at + 2, &packet.header, HEADER_BYTES);
        memcpy(out + at + 2 + HEADER_BYTES, packet.payload, packet.payload_bytes);
        at += 2u + bytes;
    }
    memcpy(errors, &deframer.errors, sizeof deframer.errors);
    return at;
}

EXPORT uint32_t host_enframe(uint8_t *out, uint8_t message, uint16_t seq, uint32_t t_mcu_us, const uint8_t *payload, uint32_t payload_bytes) {
    return enframe(out, message, seq, t_mcu_us, payload, payload_bytes);
}

EXPORT uint32_t host_crc32(uint32_t seed, const uint8_t *data, uint32_t length) { return crc32(seed, data, length); }

EXPORT float host_limited(float wanted, float last, float limit, float largest_step, uint16_t *faults) {
    return limited(wanted, last, limit, largest_step, faults);
}

EXPORT float host_arctan2(float y, float x) { return arctan2(y, x); }

EXPORT float host_pitch(const void *board) { return ((const struct board *)board)->lean.pitch_rad; }

/* What a motor board must offer: six functions. Everything else in this folder is the same on every board. */
#ifndef HAL_H
#define HAL_H

#include "robot_spec.h"
#include "messages.h"

#pragma pack(push, 1)
/* As counted, in the board's own signs and axes. NO_READING_I16 in a 16-bit field: that sensor gave nothing. */
struct raw_sensors {
    int32_t counts[JOINTS];
    int16_t gyro[3];
    int16_t accel[3];
    uint16_t battery;
#if EXTRAS > 0
    int16_t extras[EXTRAS];
#endif
};
#pragma pack(pop)

struct hal; /* each board's own */

/* Microseconds since power-on; wraps after 71 minutes. */
uint32_t hal_time_us(struct hal *hal);
/* All bytes that wait, at most `capacity`; never blocks. */
uint32_t hal_serial_read(struct hal *hal, uint8_t *out, uint32_t capacity);
/* Hands bytes to the UART; never blocks, what does not fit is lost. */
void hal_serial_write(struct hal *hal, const uint8_t *data, uint32_t length);
void hal_sensors_read(struct hal *hal, struct raw_sensors *out);
/* In command_unit, board sign. All zero and `driving` 0 means: bridges off. */
void hal_motors_write(struct hal *hal, const float command[JOINTS], uint8_t driving);
/* Waits for the next 1/BOARD_HZ and feeds the hardware watchdog. */
void hal_idle(struct hal *hal);

#endif

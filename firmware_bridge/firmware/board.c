/* One tick of the motor board, BOARD_HZ times a second. Read it top to bottom: it is all there is. */
#include "board.h"

#include <string.h>

void board_start(struct board *board, uint32_t session, uint32_t now_us) {
    memset(board, 0, sizeof *board);
    board->session = session;
    board->mode = BOARD_DISARMED;
    session_start(board, now_us);
}

static void read_host(struct board *board, struct hal *hal, uint32_t now_us) {
    uint8_t bytes[64];
    uint32_t length;
    /* Bounded: a host that babbles must not keep the safety checks from running. */
    for (int i = 0; i < 16 && (length = hal_serial_read(hal, bytes, sizeof bytes)) > 0; i++)
        for (uint32_t k = 0; k < length; k++) session_byte(board, hal, bytes[k], now_us);
}

static void drive(struct board *board, struct hal *hal) {
    uint8_t driving = board->mode == BOARD_ARMED || board->mode == BOARD_FALLBACK;
    if (board->mode == BOARD_FALLBACK) fallback_command(board, board->driven);
    else if (board->mode == BOARD_ARMED) memcpy(board->driven, board->wanted, sizeof board->driven);
    else memset(board->driven, 0, sizeof board->driven);
    board->driven_us = board->commanded_us;
    hal_motors_write(hal, board->driven, driving);
}

static int16_t rounded(float x) { return (int16_t)(x < 0.0f ? x - 0.5f : x + 0.5f); }

static void tell(struct board *board, struct hal *hal) {
    struct msg_telemetry telemetry;
    memset(&telemetry, 0, sizeof telemetry);
    telemetry.board = board->mode;
    telemetry.rx_errors = (uint8_t)(frame_errors_total(&board->deframer.errors) + board->refused);
    telemetry.faults = board->faults;
    telemetry.answered_seq = board->answered_seq;
    memcpy(telemetry.counts, board->sensors.counts, sizeof telemetry.counts);
    memcpy(telemetry.velocity_cps, board->velocity_cps, sizeof telemetry.velocity_cps);
    for (int i = 0; i < JOINTS; i++) telemetry.applied[i] = rounded(board->driven[i] / COMMAND_LIMIT[i] * 32767.0f);
    memcpy(telemetry.gyro, board->sensors.gyro, sizeof telemetry.gyro);
    memcpy(telemetry.accel, board->sensors.accel, sizeof telemetry.accel);
    telemetry.battery = board->sensors.battery;
#if EXTRAS > 0
    memcpy(telemetry.extras, board->sensors.extras, sizeof telemetry.extras);
#endif
    send(board, hal, MSG_TELEMETRY, &telemetry, sizeof telemetry);
}

void board_tick(struct board *board, struct hal *hal) {
    uint32_t now_us = hal_time_us(hal);
    int sensor_tick = board->tick % TICKS_PER_SENSOR == 0;
    hal_sensors_read(hal, &board->sensors);
    judge_sensors(board);
    if (sensor_tick) judge_motion(board);
    read_host(board, hal, now_us);
    judge_timeout(board, now_us);
    drive(board, hal);
    session_tick(board, hal, now_us);
    if (sensor_tick && board->link == LINK_UP) tell(board, hal);
    board->tick++;
}

/* What the board does when commands stop coming: the robot file's cascaded PD at BOARD_HZ, or nothing. */
#include "board.h"

#define LEAK_S 5.0f

#if FALLBACK_BALANCE_PD
static float clamp(float x, float limit) { return x > limit ? limit : x < -limit ? -limit : x; }

static float forward_speed_m_s(const struct board *board) {
    float wheels = 0.5f * (board->velocity_rad_s[0] + board->velocity_rad_s[1]);
    return WHEEL_RADIUS_M * (wheels + WHEELS_TILT_WITH_BODY * board->lean.pitch_rate_rad_s);
}

void fallback_start(struct board *board) { board->speed_integral_m = 0.0f; }

/* Stand still: speed error -> wanted lean -> duty. The same law, and the same numbers, as bundle/baselines.py. */
void fallback_command(struct board *board, float command[JOINTS]) {
    const float tick_s = 1.0f / (float)BOARD_HZ;
    float error = 0.0f - forward_speed_m_s(board);
    board->speed_integral_m += tick_s * (error - board->speed_integral_m / LEAK_S);
    float lean = clamp(BALANCE_RAD + SPEED_KP * error + SPEED_KI * board->speed_integral_m, LEAN_LIMIT_RAD);
    float common = PITCH_KP * (board->lean.pitch_rad - lean) + PITCH_KD * board->lean.pitch_rate_rad_s;
    float differential = YAW_KP * (0.0f - board->lean.yaw_rate_rad_s);
    const float share[2] = {common - differential, common + differential};
    uint16_t ignored = 0;
    for (int i = 0; i < JOINTS; i++) {
        float wanted = JOINT_SIGN[i] * share[i] * COMMAND_LIMIT[i];
        command[i] = limited(wanted, board->driven[i], COMMAND_LIMIT[i], COMMAND_SLEW_PER_S[i] * tick_s, &ignored);
    }
}
#else
void fallback_start(struct board *board) { (void)board; }

void fallback_command(struct board *board, float command[JOINTS]) {
    (void)board;
    for (int i = 0; i < JOINTS; i++) command[i] = 0.0f;
}
#endif

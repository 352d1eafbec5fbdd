/* Generated from the robot file of rover by firmware_bridge/header.py. Do not edit. */
#ifndef ROBOT_SPEC_H
#define ROBOT_SPEC_H

#include <stdint.h>

#define ROBOT_MODEL "rover"
#define JOINTS 2
#define EXTRAS 3
#define SENSOR_HZ 200
#define BOARD_HZ 1000
#define TICKS_PER_SENSOR 5
#define COMMAND_TIMEOUT_US 120000
#define BAUD 921600
#define BATTERY_CUTOFF_RAW 12000
#define BAD_SENSOR_TICKS 40
#define FALLBACK_BALANCE_PD 0
#define HAS_IMU 1
#define TILT_LIMIT_RAD 0.6f
#define TILT_ARM_RAD 0.3f
#define BATTERY_V_PER_LSB 0.001f
#define GYRO_RAD_S_PER_LSB 0.00026631584f
#define ACCEL_M_S2_PER_LSB 0.00119706002f
#define FILTER_S 0.5f
#define CLOSED_SEED 0xc481225eu

static const float JOINT_SIGN[2] = {1.0f, -1.0f};
static const float RAD_PER_COUNT[2] = {0.000383495283f, 0.000383495283f};
static const float COMMAND_LIMIT[2] = {1.0f, 1.0f};
static const float COMMAND_SLEW_PER_S[2] = {10.0f, 10.0f};
static const float OVERSPEED_RAD_S[2] = {40.0f, 40.0f};
static const float IMU_SIGN[3] = {1.0f, 1.0f, 1.0f};
static const uint8_t IMU_AXIS[3] = {0, 1, 2}; /* which sensor axis is body x, y, z */
static const uint8_t FIRMWARE_FINGERPRINT[8] = {0x26, 0x75, 0x3f, 0x5e, 0xb7, 0xd1, 0x87, 0x86};

/* What this firmware was built from, for a host that was built from something else. */
static const char SPEC_TEXT[] =
    "balance_pd = null\n"
    "battery.cutoff_v = 12.0\n"
    "battery.lsb_per_v = 1000.0\n"
    "battery.nominal_v = 14.8\n"
    "drive.track_m = 0.26\n"
    "drive.wheel_radius_m = 0.05\n"
    "drive.wheels_tilt_with_body = false\n"
    "extras[0].lsb_per_unit = 1000.0\n"
    "extras[0].name = \"radar_x_m\"\n"
    "extras[1].lsb_per_unit = 1000.0\n"
    "extras[1].name = \"radar_y_m\"\n"
    "extras[2].lsb_per_unit = 1000.0\n"
    "extras[2].name = \"radar_speed_m_s\"\n"
    "imu.accel_lsb_per_m_s2 = 835.38\n"
    "imu.axes = [\"+x\", \"+y\", \"+z\"]\n"
    "imu.filter_s = 0.5\n"
    "imu.gyro_lsb_per_rad_s = 3754.94\n"
    "joints[0].command_limit = 1.0\n"
    "joints[0].command_slew_per_s = 10.0\n"
    "joints[0].command_unit = \"duty\"\n"
    "joints[0].counts_per_rad = 2607.594\n"
    "joints[0].name = \"left_wheel\"\n"
    "joints[0].overspeed_rad_s = 40.0\n"
    "joints[0].sign = 1\n"
    "joints[0].velocity_limit_rad_s = 24.0\n"
    "joints[1].command_limit = 1.0\n"
    "joints[1].command_slew_per_s = 10.0\n"
    "joints[1].command_unit = \"duty\"\n"
    "joints[1].counts_per_rad = 2607.594\n"
    "joints[1].name = \"right_wheel\"\n"
    "joints[1].overspeed_rad_s = 40.0\n"
    "joints[1].sign = -1\n"
    "joints[1].velocity_limit_rad_s = 24.0\n"
    "link.baud = 921600\n"
    "model = \"rover\"\n"
    "rates.board_hz = 1000\n"
    "rates.command_timeout_ms = 120\n"
    "rates.sensor_hz = 200\n"
    "safety.bad_sensor_ms = 40\n"
    "safety.fallback = \"damp\"\n"
    "safety.tilt_arm_rad = 0.3\n"
    "safety.tilt_limit_rad = 0.6"
    ;

#endif

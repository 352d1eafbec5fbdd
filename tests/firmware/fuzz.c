/* Streams from standard input through the decoder and a whole board, each in a buffer of exactly its size: built with the
 * address and undefined-behaviour sanitizers, anything read or written a byte too far ends the program. Prints what came out. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hal.h"

uint32_t host_board_size(void);
void host_board_start(void *board, uint32_t session, uint32_t now_us);
uint32_t host_board_tick(void *board, uint32_t now_us, const uint8_t *rx, uint32_t rx_length, const struct raw_sensors *sensors, uint8_t *tx,
                         uint32_t tx_capacity, float *command, uint8_t *mode);
uint32_t host_deframe(const uint8_t *stream, uint32_t length, uint8_t *out, uint32_t capacity, uint32_t errors[7]);

int main(void) {
    uint32_t length, now_us = 0xfffff000u, packets_bytes = 0, sent_bytes = 0, streams = 0, errors[7], total[7] = {0};
    void *board = malloc(host_board_size());
    host_board_start(board, 1, now_us);
    while (fread(&length, sizeof length, 1, stdin) == 1) {
        uint8_t *stream = malloc(length ? length : 1), *out = malloc(length + 64), *tx = malloc(512);
        struct raw_sensors sensors;
        float *command = malloc(sizeof(float) * JOINTS);
        uint8_t mode;
        if (fread(stream, 1, length, stdin) != length) return 2;
        packets_bytes += host_deframe(stream, length, out, length + 64, errors);
        for (int i = 0; i < 7; i++) total[i] += errors[i];
        memset(&sensors, 0x11, sizeof sensors); /* sensors as wild as the stream, where it is long enough */
        memcpy(&sensors, stream, length < sizeof sensors ? length : sizeof sensors);
        sent_bytes += host_board_tick(board, now_us += 1000, stream, length, &sensors, tx, 512, command, &mode);
        for (int i = 0; i < JOINTS; i++)
            if (!(command[i] <= COMMAND_LIMIT[i] && command[i] >= -COMMAND_LIMIT[i])) return 3;
        free(stream), free(out), free(tx), free(command);
        streams++;
    }
    free(board);
    printf("%u %u", streams, packets_bytes);
    for (int i = 0; i < 7; i++) printf(" %u", total[i]);
    printf(" %d\n", sent_bytes > 0);
    return 0;
}

/* Whose rights the process has, for an image whose copy of this belongs to root and has the set-user-ID bit. */

#include <stdio.h>
#include <unistd.h>

int main(void)
{
	printf("Effective uid: %d\n", geteuid());
	return 0;
}

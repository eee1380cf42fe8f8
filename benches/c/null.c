/* Does nothing. Its time is the cost of measuring. */

int main(void)
{
    return 0;
}
